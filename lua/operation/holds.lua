-- The holds of the current record, and their expiry.
--
-- A hold counts until its expiry. An operation that finds expired holds drops them from the record that it writes; the
-- sweeper (lua/partition/sweep.lua) does it for inactive users. An expired hold charges nothing; a late commit may.
--
-- Defines: held, earliest_expiry_ms, holds, expired_now; keep_holds, expire_holds, find_hold, add_hold, remove_hold

local HOLD, WHOLE_HOLD, HOLD_BYTES = '>I4I3I6', '>c16I4I3I6', 29

local period   -- the record's, read by record.lua
local held, earliest_expiry_ms, holds
local expired_now = 0   -- number of expired holds that this operation has found

-- Keeps the live holds except `without`, and recomputes the AP that they hold in this period. Counts expired holds for
-- the metrics; they disappear only when the record is written.
local function keep_holds(without)
  local kept = {}
  held, earliest_expiry_ms = 0, 0
  for at = 1, #holds, HOLD_BYTES do
    local ap, hold_period, expiry_ms = unpack(HOLD, holds, at + 16)
    if expiry_ms > now_ms and sub(holds, at, at + 15) ~= without then
      kept[#kept + 1] = sub(holds, at, at + HOLD_BYTES - 1)
      if same_period(hold_period, period) then held = held + ap end
      if earliest_expiry_ms == 0 or expiry_ms < earliest_expiry_ms then earliest_expiry_ms = expiry_ms end
    elseif expiry_ms <= now_ms then
      expired_now = expired_now + 1
    end
  end
  holds = join(kept)
end

local function expire_holds()
  if holds ~= '' and earliest_expiry_ms <= now_ms then keep_holds() end
end

-- Returns the position, AP, period and expiry of a hold; nil if it is not among the live holds.
local function find_hold(id)
  local at = find(holds, id, 1, true)
  while at and at % HOLD_BYTES ~= 1 do
    at = find(holds, id, at + 1, true)   -- the match may span two holds
  end
  if at then return at, unpack(HOLD, holds, at + 16) end
end

local function add_hold(id, ap, hold_period, expiry_ms)
  holds = holds .. pack(WHOLE_HOLD, id, ap, hold_period, expiry_ms)
  if same_period(hold_period, period) then held = held + ap end
  if earliest_expiry_ms == 0 or expiry_ms < earliest_expiry_ms then earliest_expiry_ms = expiry_ms end
end

local function remove_hold(id)
  if #holds == HOLD_BYTES then
    held, earliest_expiry_ms, holds = 0, 0, ''
  else
    keep_holds(id)
  end
end
