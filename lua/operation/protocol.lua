-- The words that the gate and the library share, and what the gate says of the calendar.
--
-- Each number here has its twin in src/store/redis/ (operation.rs, reply.rs).
-- Redis keeps its libraries from code that is being loaded, so the locals are filled at the start of each call.
--
-- args[1]  the fence that the caller believes in: the generation, and the Redis process that its connection leads to
-- args[2]  the generation again, as a number; the calendar: caller's clock, period of a minute ago, its end, the
--          next period, day of a minute ago, its end, the next day; most entries of the usage stream; then the levels:
--          count, and code and quota of each
-- Defines: spread (Lua's own unpack), pack, unpack, sub, byte, char, find, join, status and flag names, now_ms,
--          generation, caller_ms, current_period, current_day, stream_entries_max, quota_of, begin_call

local OK, DENIED, MISSING, UNKNOWN_HOLD, EXPIRED, SETTLED, MISMATCH, TOO_MANY_HOLDS, BEHIND, SHED =
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local REPLAYED, LATE, DETAILED, HOLDING = 1, 2, 4, 8

local SKEW_MAX_MS = 60000           -- further apart than this, neither clock can be believed
local SETTLE_WINDOW_MS = 600000     -- how long after its expiry a hold may still be committed
local ACCEPTED_KEPT_MS = 604800000  -- how long the settlement of an accepted commit is kept: as src/jobs/settler.rs
local HOLDS_MAX = 64                -- live holds per user: the record is read whole at each message

local spread, pack, unpack, sub, byte, char, find, join
local now_ms, generation, caller_ms, current_period, current_day, stream_entries_max, quota_of

local function begin_call(args)
  spread, pack, unpack = _G.unpack, struct.pack, struct.unpack
  sub, byte, char, find, join = string.sub, string.byte, string.char, string.find, table.concat

  now_ms = read_clock()
  local period_end_ms, next_period, day_end_ms, next_day, levels, levels_at
  generation, caller_ms, current_period, period_end_ms, next_period, current_day, day_end_ms, next_day,
    stream_entries_max, levels, levels_at = unpack('>I4I6I3I6I3I2I6I2I4B', args[2])
  if now_ms >= period_end_ms then current_period = next_period end
  if now_ms >= day_end_ms then current_day = next_day end

  quota_of = {}
  for i = 0, levels - 1 do
    local code, quota = unpack('>BI4', args[2], levels_at + i * 5)
    quota_of[code] = quota
  end
end
