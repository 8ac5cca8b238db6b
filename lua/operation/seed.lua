-- seed: load a user from Postgres into Redis.
--
-- Set-if-absent-or-older: a second seed changes nothing. If Redis has a record of an older generation, the larger
-- `used` of that record and Postgres counts for a period, so a Postgres restored from a backup grants nothing twice.
-- Holds of an older generation are not taken over: the gate checks a commit of one against Postgres first.
--
-- Arguments: period I3, level B, quota I4, pending level B, level version I4, flags B, used I4, total used I6,
--            day I2, used today I4
-- Answer:    OK alone

local function seed(op, at, slot)
  local known = values[slot]
  if known then
    read_record(known)
    if record_generation >= generation then return say(char(OK)) end
  else
    period, used, total_used, day, used_today, version, record_flags = 0, 0, 0, 0, 0, 0, 0
  end
  local was_period, was_used, was_total_used, was_day, was_used_today = period, used, total_used, day, used_today

  period, level, quota, pending, level_version, record_flags, used, total_used, day, used_today =
    unpack('>I3BI4BI4BI4I6I2I4', op, at)

  if was_period == period then used = math.max(used, was_used) end
  if was_period > period then roll_to(was_period); used = was_used end
  if was_day == day then used_today = math.max(used_today, was_used_today) end
  total_used = math.max(total_used, was_total_used)
  held, earliest_expiry_ms, holds = 0, 0, ''
  base_after(slot, true)
  say(char(OK))
end
