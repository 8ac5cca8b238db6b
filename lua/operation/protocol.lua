-- The words that the gate and the script share, and what the gate says of the calendar.
--
-- Each number here has its twin in src/store/redis/ (operation.rs, reply.rs).
--
-- ARGV[1]  the generation that the caller believes to be open, in decimal
-- ARGV[2]  the calendar: caller's clock, period of a minute ago, its end, the next period,
--          day of a minute ago, its end, the next day; most entries of the usage stream; then the levels:
--          count, and code and quota of each
-- Defines: spread (Lua's own unpack), pack, unpack, sub, status and flag names, generation, caller_ms,
--          current_period, current_day, stream_entries_max, quota_of

local spread, pack, unpack, sub = unpack, struct.pack, struct.unpack, string.sub

local OK, DENIED, MISSING, UNKNOWN_HOLD, EXPIRED, SETTLED, MISMATCH, TOO_MANY_HOLDS, BEHIND, SHED =
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local REPLAYED, LATE = 1, 2

local SKEW_MAX_MS = 60000           -- further apart than this, neither clock can be believed
local SETTLE_WINDOW_MS = 600000     -- how long after its expiry a hold may still be committed
local HOLDS_MAX = 64                -- live holds per user: the record is read whole at each message

local generation = tonumber(ARGV[1])

local caller_ms, current_period, period_end_ms, next_period, current_day, day_end_ms, next_day,
  stream_entries_max, levels, levels_at = unpack('>I6I3I6I3I2I6I2I4B', ARGV[2])
if now_ms >= period_end_ms then current_period = next_period end
if now_ms >= day_end_ms then current_day = next_day end

local quota_of = {}
for i = 0, levels - 1 do
  local code, quota = unpack('>BI4', ARGV[2], levels_at + i * 5)
  quota_of[code] = quota
end
