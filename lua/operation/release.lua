-- release: give a hold's AP back. Nothing is charged, so nothing is journalled.
--
-- Arguments: hold id c16; the reservation: expiry I6, generation I4; adopt B
-- Answer:    OK, REPLAYED if it was released before or expired long ago | UNKNOWN_HOLD | SETTLED

local function release(op, at, slot, outcome)
  local id, expiry_ms, hold_generation, adopt = unpack('>c16I6I4B', op, at)

  local state = settlement_of(outcome)
  if state == RELEASED then return answer_with(slot, false, OK, REPLAYED, id, 0, 0, 0) end
  if state then return answer(slot, false, SETTLED) end

  local place, _, _, held_until_ms = find_hold(id)
  if place then
    expiry_ms = held_until_ms
    remove_hold(id)
  elseif now_ms > expiry_ms + SETTLE_WINDOW_MS then
    return answer_with(slot, false, OK, REPLAYED, id, 0, 0, 0)
  elseif may_be_settled_elsewhere(hold_generation, adopt) then
    return answer(slot, false, UNKNOWN_HOLD)
  end

  keep_settlement(outcome, RELEASED, 0, 0, expiry_ms)
  answer(slot, place ~= nil, OK)
end
