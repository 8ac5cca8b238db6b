-- seed: load a user's account of a meter from Postgres into Redis.
--
-- Set-if-absent-or-older: a second seed changes nothing. If Redis has a record of an older generation, the larger
-- `used` of that record and Postgres counts for a period, so a Postgres restored from a backup grants nothing twice.
-- Holds of an older generation are not taken over: the gate checks a commit of one against Postgres first. Of windows,
-- the later counts, and of the same window the larger `used`. A grant that the older record knew has what is left in
-- both.
--
-- Arguments: period code I3, level B, quota I4, pending level B, level version I4, flags B, used I4, total used I6,
--            day I2, used today I4; with windows or grants also: windows and grants, as in the tails of a record
-- Answer:    OK alone

local seed
do   -- Redis allows 200 locals of a script

-- Adds the windows of an older record to those of the seed.
local function merge_windows(older)
  for i = 1, #older do
    local window, same = older[i], window_for(older[i])
    if window.used > 0 and not same then
      windows[#windows + 1] = window
    elseif window.used > 0 and (window.start_ms > same.start_ms
      or window.start_ms == same.start_ms and window.used > same.used) then
      same.start_ms, same.used = window.start_ms, window.used
    end
  end
end

local function merge_grants(older, older_version)
  local left = {}
  for i = 1, #older do left[older[i].number] = older[i].left end
  for i = 1, #grants do
    local grant = grants[i]
    if grant.number <= older_version then grant.left = math.min(grant.left, left[grant.number] or 0) end
  end
end

-- Sets windows and grants from the seed and the older record. `windows` stays nil if there is none.
local function seed_tails(op, at, older_windows, older_grants, older_version)
  windows, grants, grants_version = {}, {}, 0
  if at <= #op then
    windows, at = read_windows(op, at)
    grants_version, grants = read_grants(op, at)
  end
  if older_windows then
    merge_windows(older_windows)
    merge_grants(older_grants, older_version)
  end
  for i = 1, #windows do version = math.max(version, windows[i].start_ms - 1) end
  record_ms = math.max(now_ms, version + 1)
  drop_ended_windows()
  if not windows[1] and grants_version == 0 then windows = nil end
end

function seed(op, at, slot)
  local known = values[slot]
  if known then
    read_record(known)
    if record_generation >= generation then return say(char(OK)) end
  else
    period, used, total_used, day, used_today, version, record_flags = 0, 0, 0, 0, 0, 0, 0
    windows = nil
  end
  local was_first_day = known and first_day(period) or 0
  local older_windows, older_grants, older_version = windows, grants, grants_version
  local was_period, was_used, was_total_used, was_day, was_used_today = period, used, total_used, day, used_today

  period, level, quota, pending, level_version, record_flags, used, total_used, day, used_today, at =
    unpack('>I3BI4BI4BI4I6I2I4', op, at)
  held, earliest_expiry_ms, holds, hold_list, held_granted = 0, 0, '', {}, 0
  take_limits()
  seed_tails(op, at, older_windows, older_grants, older_version)

  if was_first_day == first_day(period) then used = math.max(used, was_used) end
  if was_first_day > first_day(period) then
    roll_to(with_anchor(was_period, period))
    used = was_used
  end
  if was_day == day then used_today = math.max(used_today, was_used_today) end
  total_used = math.max(total_used, was_total_used)
  expired_now = 0
  base_after(slot, true)
  say(char(OK))
end

end
