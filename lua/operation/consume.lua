-- consume: check and charge in one step.
--
-- Arguments: cost I4; with an Idempotency-Key also what idempotency.lua reads; then the event's tail
-- Answer:    OK | DENIED | BLOCKED | SHED | MISMATCH

local function consume(op, at, slot, outcome)
  local cost
  cost, at = unpack('>I4', op, at)
  if outcome > 0 then
    at = read_key(op, at)
    if replay(slot, outcome) then return end
  end

  if is_blocked() then return answer(slot, false, BLOCKED) end
  if journal_is_full() then return answer(slot, false, SHED) end
  if windows then
    if not admits(cost) then return answer(slot, false, DENIED) end
    journal(CONSUME, period, cost, 0, sub(op, at), pay_message(cost))
  else
    if cost > free() then return answer(slot, false, DENIED) end
    charge(cost, period)
    journal(CONSUME, period, cost, 0, sub(op, at))
  end
  answer(slot, true, OK)
  if outcome > 0 then keep_answer(sub(op, at, at + 15)) end
end
