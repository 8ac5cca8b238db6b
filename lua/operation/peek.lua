-- peek: the user's numbers and live holds, as they are now. Writes nothing.
--
-- Arguments: none
-- Answer:    OK with the holds

local function peek(slot)
  return answer(slot, false, OK, 0, nil, 0, 0, 0, true)
end
