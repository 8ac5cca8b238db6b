-- peek: return the user's current numbers and live holds. Writes nothing.
--
-- Arguments: none
-- Answer:    OK with the holds

local function peek(slot)
  if holds == '' then return answer(slot, false, OK) end
  say(pack('>BBI4B', OK, HOLDING, held, #holds / HOLD_BYTES))
  say(base_after(slot, false))
  say(holds)
end
