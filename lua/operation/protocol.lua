-- Constants shared by the gate and the script, and what the gate sends with each call.
--
-- Each constant has a twin in src/store/redis/ (operation.rs, reply.rs).
-- Redis hides its libraries from code that is being loaded, so begin_call fills the locals at the start of each call.
--
-- args[1]  the fence that the caller expects: the generation, and the Redis process of its connection
-- args[2]  the generation again, as a number; the caller's clock; maximum bytes of the usage stream; then the calendar
--          (periods.lua)
-- Defines: spread (Lua's own unpack), pack, unpack, sub, byte, char, find, join, status and flag names, now_ms,
--          generation, caller_ms, stream_bytes_max, CALENDAR_AT, begin_call

local OK, DENIED, MISSING, UNKNOWN_HOLD, EXPIRED, SETTLED, MISMATCH, TOO_MANY_HOLDS, BEHIND, SHED, BLOCKED =
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local REPLAYED, LATE, DETAILED, HOLDING, PINNED, LIMITS, PARTS = 1, 2, 4, 8, 16, 32, 64

local SKEW_MAX_MS = 60000           -- if the clocks differ by more, neither is trusted
local SETTLE_WINDOW_MS = 600000     -- how long after its expiry a hold can still be committed
local ACCEPTED_KEPT_MS = 604800000  -- how long the settlement of an accepted commit is kept, like items of the inbox
local CALENDAR_AT = 17              -- position of the calendar in the second argument
local HOLDS_MAX = 64                -- live holds per user; each message reads the whole record

local spread, pack, unpack, sub, byte, char, find, join
local now_ms, generation, caller_ms, stream_bytes_max

local function begin_call(args)
  spread, pack, unpack = _G.unpack, struct.pack, struct.unpack
  sub, byte, char, find, join = string.sub, string.byte, string.char, string.find, table.concat

  now_ms = read_clock()
  generation, caller_ms, stream_bytes_max = unpack('>I4I6I6', args[2])
end
