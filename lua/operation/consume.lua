-- consume: check and charge in one step.
--
-- Arguments: cost I4; with an Idempotency-Key also fingerprint c16, time to live in ms I6; then the event's tail
-- Answer:    OK with id and charged | DENIED | SHED | MISMATCH

local function consume(op, at, slot, outcome)
  local cost, fingerprint, ttl_ms
  cost, at = unpack('>I4', op, at)
  if outcome > 0 then
    fingerprint, ttl_ms, at = unpack('>c16I6', op, at)
    local again = replay(slot, outcome, fingerprint)
    if again then return again end
  end

  if journal_is_full() then return answer(slot, false, SHED, 0) end
  if cost > free() then return answer(slot, false, DENIED, 0) end

  local tail = sub(op, at)
  charge(cost, period)
  journal(CONSUME, period, cost, 0, tail)
  local reply = answer(slot, true, OK, 0, sub(tail, 1, 16), cost)
  if outcome > 0 then keep_outcome(outcome, fingerprint .. reply, ttl_ms) end
  return reply
end
