-- set-level: update a user's membership level, own quota and block from Postgres. Used AP do not change.
--
-- The row's anchor day replaces that of the record. The row can be in a later period, which a payment has begun: then
-- the record begins it too.
--
-- Around the end of a period, the row and the record can briefly be in different periods. A record that is ahead
-- applies the pending level immediately. One that is behind, because by the clock of Redis the row's period has not
-- begun, answers BEHIND. A lower level version never wins.
--
-- Arguments: period code of the row I3, level B, quota I4, pending level B, level version I4, flags B
-- Answer:    OK | BEHIND

local function set_level(op, at, slot)
  local row_period, row_level, row_quota, row_pending, row_version, row_flags = unpack('>I3BI4BI4B', op, at)
  if row_version <= level_version then return answer(slot, false, OK) end
  local row_first_day, record_first_day = first_day(row_period), first_day(period)
  if row_first_day > record_first_day then
    if row_first_day > current_day then return answer(slot, false, BEHIND) end
    roll_to(row_period)
  end

  level, quota, pending, level_version, record_flags = row_level, row_quota, row_pending, row_version, row_flags
  period = row_first_day == first_day(period) and row_period or with_anchor(period, row_period)
  if row_first_day < record_first_day then
    if pending ~= 0 then level, pending = pending, 0 end
    quota = quota_of_level(level, quota)
  end
  use_limits()
  answer(slot, true, OK)
end
