-- The holds of the current record, and their expiry.
--
-- A hold counts until its expiry. An operation that finds expired holds drops them from the record that it writes; the
-- sweeper (lua/partition/sweep.lua) does it for inactive users. An expired hold charges nothing; a late commit may.
--
-- A record of format 1 has its holds in one string, which is not taken apart for most messages. Users with windows or
-- grants have records of format 2: their holds are a list, because each decision adds them up.
--
-- Defines: held, earliest_expiry_ms, holds, expired_now; windows, grants, grants_version, hold_list, held_granted,
--          record_ms; keep_holds, expire_holds, find_hold, add_hold, remove_hold, live_holds, list_holds

local HOLD, WHOLE_HOLD, HOLD_BYTES = '>I4I3I6', '>c16I4I3I6', 29

local period   -- the record's, read by record.lua
local held, earliest_expiry_ms, holds
local expired_now = 0   -- number of expired holds that this operation has found

local windows                  -- running windows of a record of format 2; nil for format 1
local grants, grants_version   -- its grants, and the version of the list that it knows
local hold_list, held_granted  -- its holds; AP of them that grants are to pay. `held` is what the plan is to pay.
local record_ms                -- its time: the clock, but after every earlier change, so that no order is reversed

local function keep_hold_list(without)
  local kept = {}
  held, held_granted, earliest_expiry_ms = 0, 0, 0
  for i = 1, #hold_list do
    local hold = hold_list[i]
    if hold.expiry_ms <= record_ms then
      expired_now = expired_now + 1
    elseif hold.id ~= without then
      kept[#kept + 1] = hold
      if same_period(hold.period, period) then held = held + hold.plan end
      held_granted = held_granted + hold.granted
      if earliest_expiry_ms == 0 or hold.expiry_ms < earliest_expiry_ms then earliest_expiry_ms = hold.expiry_ms end
    end
  end
  hold_list = kept
end

-- Keeps the live holds except `without`, and recomputes the AP that they hold in this period. Counts expired holds for
-- the metrics; they disappear only when the record is written.
local function keep_holds(without)
  if windows then return keep_hold_list(without) end
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
  if windows then
    if hold_list[1] and earliest_expiry_ms <= record_ms then keep_hold_list() end
  elseif holds ~= '' and earliest_expiry_ms <= now_ms then
    keep_holds()
  end
end

-- Returns the position, AP that the plan is to pay, period and expiry of a hold, and in a record of format 2 the AP
-- that grants are to pay and when it was made; nil if it is not among the live holds.
local function find_hold(id)
  if windows then
    for i = 1, #hold_list do
      local hold = hold_list[i]
      if hold.id == id then return i, hold.plan, hold.period, hold.expiry_ms, hold.granted, hold.made_ms end
    end
    return nil
  end
  local at = find(holds, id, 1, true)
  while at and at % HOLD_BYTES ~= 1 do
    at = find(holds, id, at + 1, true)   -- the match may span two holds
  end
  if at then return at, unpack(HOLD, holds, at + 16) end
end

local function add_hold(id, plan, hold_period, expiry_ms, granted, made_ms)
  if windows then
    hold_list[#hold_list + 1] =
      { id = id, plan = plan, granted = granted, period = hold_period, made_ms = made_ms, expiry_ms = expiry_ms }
    held_granted = held_granted + granted
  else
    holds = holds .. pack(WHOLE_HOLD, id, plan, hold_period, expiry_ms)
  end
  if same_period(hold_period, period) then held = held + plan end
  if earliest_expiry_ms == 0 or expiry_ms < earliest_expiry_ms then earliest_expiry_ms = expiry_ms end
end

local function remove_hold(id)
  if #holds == HOLD_BYTES then
    held, earliest_expiry_ms, holds = 0, 0, ''
  else
    keep_holds(id)
  end
end

local function live_holds()
  return windows and #hold_list or #holds / HOLD_BYTES
end

-- Turns the holds of format 1 into a list. When they were made is unknown: they count in no window.
local function list_holds()
  hold_list, held_granted = {}, 0
  for at = 1, #holds, HOLD_BYTES do
    local id, plan, hold_period, expiry_ms = unpack(WHOLE_HOLD, holds, at)
    hold_list[#hold_list + 1] =
      { id = id, plan = plan, granted = 0, period = hold_period, made_ms = 0, expiry_ms = expiry_ms }
  end
  holds = ''
end
