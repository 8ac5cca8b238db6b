-- consume: check and charge in one step.
--
-- Arguments: cost I4; with an Idempotency-Key also fingerprint c16, time to live in ms I6; then the event's tail
-- Answer:    OK | DENIED | SHED | MISMATCH

local function consume(op, at, slot, outcome)
  local cost, fingerprint, ttl_ms
  cost, at = unpack('>I4', op, at)
  if outcome > 0 then
    fingerprint, ttl_ms, at = unpack('>c16I6', op, at)
    if replay(slot, outcome, fingerprint) then return end
  end

  if journal_is_full() then return answer(slot, false, SHED) end
  if cost > free() then return answer(slot, false, DENIED) end

  charge(cost, period)
  journal(CONSUME, period, cost, 0, sub(op, at))
  answer(slot, true, OK)
  if outcome > 0 then keep_answer(outcome, fingerprint, ttl_ms) end
end
