-- reserve: hold AP before generating. Nothing is charged, so nothing is journalled.
--
-- Arguments: cost I4, time to live of the hold in ms I4, hold id c16; with an Idempotency-Key also what idempotency.lua
--            reads
-- Answer:    OK with id and expiry | DENIED | BLOCKED | SHED | TOO_MANY_HOLDS | MISMATCH

local function reserve(op, at, slot, outcome)
  local cost, hold_ttl_ms, id
  cost, hold_ttl_ms, id, at = unpack('>I4I4c16', op, at)
  if outcome > 0 then
    read_key(op, at)
    if replay(slot, outcome) then return end
  end

  if is_blocked() then return answer(slot, false, BLOCKED) end
  if journal_is_full() then return answer(slot, false, SHED) end
  if windows and not admits(cost) or not windows and cost > free() then return answer(slot, false, DENIED) end
  local concurrency = limits and limits.concurrency or 0
  if concurrency > 0 and live_holds() >= concurrency then return answer(slot, false, DENIED) end
  if live_holds() >= HOLDS_MAX then return answer(slot, false, TOO_MANY_HOLDS) end

  local expiry_ms, granted, made_ms = now_ms + hold_ttl_ms, nil, nil
  if windows then
    expiry_ms, made_ms = record_ms + hold_ttl_ms, record_ms
    granted = hold_parts(id, cost, expiry_ms)
  else
    add_hold(id, cost, period, expiry_ms)
  end
  answer_with(slot, true, OK, 0, id, 0, 0, expiry_ms, nil, granted, made_ms)
  if outcome > 0 then keep_answer(id, expiry_ms, granted, made_ms) end
end
