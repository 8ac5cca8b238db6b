-- set-level: update a user's membership level, own quota and block from Postgres. Used AP do not change.
--
-- Around the end of a month, the row and the record can briefly be in different periods. A record that is ahead applies
-- the pending level immediately. One that is behind answers BEHIND, because a pending level must not be applied a month
-- early. A lower level version never wins.
--
-- Arguments: period of the row I3, level B, quota I4, pending level B, level version I4, flags B
-- Answer:    OK | BEHIND

local function set_level(op, at, slot)
  local row_period, row_level, row_quota, row_pending, row_version, row_flags = unpack('>I3BI4BI4B', op, at)
  if row_version <= level_version then return answer(slot, false, OK) end
  if row_period > period then return answer(slot, false, BEHIND) end

  level, quota, pending, level_version, record_flags = row_level, row_quota, row_pending, row_version, row_flags
  if row_period < period then
    if pending ~= 0 then level, pending = pending, 0 end
    quota = quota_of_level(level, quota)
  end
  answer(slot, true, OK)
end
