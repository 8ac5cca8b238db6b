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
  if cost > free() then return answer(slot, false, DENIED) end
  if #holds >= HOLDS_MAX * HOLD_BYTES then return answer(slot, false, TOO_MANY_HOLDS) end

  local expiry_ms = now_ms + hold_ttl_ms
  add_hold(id, cost, period, expiry_ms)
  answer_with(slot, true, OK, 0, id, 0, 0, expiry_ms)
  if outcome > 0 then keep_answer(id, expiry_ms) end
end
