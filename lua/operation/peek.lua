-- peek: return the user's current numbers and live holds. Writes nothing.
--
-- Arguments: none
-- Answer:    OK with the holds

local function peek(slot)
  if windows then
    local base = base_after(slot, false)
    say(pack('>BBI4B', OK, HOLDING + LIMITS, held, #hold_list))
    say(base)
    say(packed_holds)
    return say(limits_after())
  end
  if holds == '' then return answer(slot, false, OK) end
  if limits then
    say(pack('>BBI4B', OK, HOLDING + LIMITS, held, #holds / HOLD_BYTES))
    say(base_after(slot, false))
    say(holds)
    return say(limits_after())
  end
  say(pack('>BBI4B', OK, HOLDING, held, #holds / HOLD_BYTES))
  say(base_after(slot, false))
  say(holds)
end
