-- extend: keep a hold alive while its answer is still being generated. The expiry never moves earlier.
--
-- Arguments: hold id c16, time to live from now in ms I4
-- Answer:    OK with the new expiry | EXPIRED | SETTLED

local function extend(op, at, slot, outcome)
  local id, hold_ttl_ms = unpack('>c16I4', op, at)
  if settlement_of(outcome) then return answer(slot, false, SETTLED) end

  local place, plan, hold_period, expiry_ms, granted, made_ms = find_hold(id)
  if not place then return answer(slot, false, EXPIRED) end

  local later_ms = math.max(expiry_ms, (windows and record_ms or now_ms) + hold_ttl_ms)
  remove_hold(id)
  add_hold(id, plan, hold_period, later_ms, granted, made_ms)
  answer_with(slot, true, OK, 0, id, 0, 0, later_ms)
end
