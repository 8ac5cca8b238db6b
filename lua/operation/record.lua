-- The current record: one user's state, unpacked into locals that every operation reads and writes.
--
-- Layout, big-endian (twin: src/store/redis/record.rs; README.md has the table):
--   base   format B, generation I4, period code I3, level B, quota I4, pending level B (0: none),
--          level version I4, used I4, total used I6, day I2, used today I4, version I6     = 40 bytes
--   holds  held I4, earliest expiry I6, then each hold: id c16, AP I4, period code I3, expiry I6; absent without holds
-- The format byte is the format, plus 8 for a quota of the user's own, plus 16 for a blocked user ("flags"). In format
-- 2, the tails of tails.lua follow the base.
--
-- Defines: the fields; read_record, extend_record, use_limits, quota_of_level, is_blocked, roll_to, bring_up_to_date,
-- free, charge, charge_parts. holds.lua has the holds.

local BASE, BASE_BYTES = '>BI4I3BI4BI4I4I6I2I4I6', 40
local FORMATS = 8   -- the format byte modulo this is the format; the rest are flags
local OWN_QUOTA, BLOCKED_USER = 8, 16

local record_generation, quota, pending, level_version
local used, total_used, day, used_today, version
local record_flags   -- the sum of OWN_QUOTA and BLOCKED_USER, where they apply

local function read_record(bytes)
  local format_byte
  expired_now = 0
  format_byte, record_generation, period, level, quota, pending, level_version, used, total_used, day, used_today,
    version = unpack(BASE, bytes)
  if format_byte == FORMAT then
    record_flags = 0
  else
    local format = format_byte % FORMATS
    record_flags = format_byte - format
    if format == EXTENDED_FORMAT then
      record_ms = math.max(now_ms, version + 1)
      return read_tails(bytes, BASE_BYTES + 1)
    end
  end
  windows = nil
  if #bytes > BASE_BYTES then
    held, earliest_expiry_ms = unpack('>I4I6', bytes, BASE_BYTES + 1)
    holds = sub(bytes, BASE_BYTES + 11)
  else
    held, earliest_expiry_ms, holds = 0, 0, ''
  end
end

-- Continues in format 2, for a user whose level has windows or who gets a grant.
local function extend_record()
  record_ms = math.max(now_ms, version + 1)
  list_holds()
  windows, grants, grants_version = {}, {}, 0
end

-- Applies the limits of the level.
local function use_limits()
  if limits_of then
    take_limits()
    if limits and limits[1] and not windows then extend_record() end
  end
  if windows then
    drop_ended_windows()
    tidy_grants()
  end
end

-- The quota with which a record of this level goes on: the user's own wins.
local function quota_of_level(code, otherwise)
  if record_flags % BLOCKED_USER >= OWN_QUOTA then return otherwise end
  return quota_for(code, otherwise)
end

local function is_blocked()
  return record_flags >= BLOCKED_USER
end

-- Starts a later period. Holds of the old period stay, so they can still be committed to it.
local function roll_to(later)
  period, used = later, 0
  if pending ~= 0 then level, pending = pending, 0 end
  quota = quota_of_level(level, quota)
  keep_holds()
end

-- A record only moves forward: if the clock steps back, no period or day starts twice.
local function bring_up_to_date()
  local later = period ~= current_month and later_period(period)
  if later then
    roll_to(later)
  else
    expire_holds()
  end
  if day < current_day then day, used_today = current_day, 0 end
end

local function free()
  local ap = quota - used - held
  if ap < 0 then return 0 end
  return ap
end

-- Charges what the plan and grants pay.
local function charge_parts(plan, granted, charged_period)
  if same_period(charged_period, period) then used = used + plan end
  total_used = total_used + plan + granted
  used_today = used_today + plan + granted
end

local function charge(ap, charged_period)
  if same_period(charged_period, period) then used = used + ap end
  total_used = total_used + ap
  used_today = used_today + ap
end
