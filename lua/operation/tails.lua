-- The tails of a record of format 2: windows, grants and holds (decision 0022). Twin: src/store/redis/tails.rs
--
--   tails B, the sum of those that follow:
--   1 windows  count B; each: minutes I2, unit B, start I6, used I4
--   2 grants   version I6, count B; each: number I6, left I4, expiry I6 (0: never), priority B
--   4 holds    held plan AP I4, held granted AP I4, earliest expiry I6; each: id c16, plan AP I4, granted AP I4,
--              period I3, made I6, expiry I6
--
-- Defines: FORMAT, EXTENDED_FORMAT, read_windows, read_grants, read_tails, pack_grants, write_tails,
--          packed_holds

local FORMAT, EXTENDED_FORMAT = 1, 2
local packed_holds   -- the holds that write_tails has packed last
local read_windows, read_grants, read_tails, pack_grants, write_tails
do   -- Redis allows 200 locals of a script

local WINDOWS, GRANTS, HOLDS = 1, 2, 4
local EXTENDED_HOLD, EXTENDED_HOLD_BYTES = '>c16I4I4I3I6I6', 39

-- Returns windows and the position after them.
function read_windows(bytes, at)
  local list, count = {}, byte(bytes, at)
  at = at + 1
  for i = 1, count do
    local minutes, unit, start_ms, used
    minutes, unit, start_ms, used, at = unpack('>I2BI6I4', bytes, at)
    list[i] = { minutes = minutes, unit = unit, start_ms = start_ms, used = used }
  end
  return list, at
end

-- Returns a version, grants, and the position after them.
function read_grants(bytes, at)
  local list, list_version, count = {}, unpack('>I6B', bytes, at)
  at = at + 7
  for i = 1, count do
    local number, left, expiry_ms, priority
    number, left, expiry_ms, priority, at = unpack('>I6I4I6B', bytes, at)
    if expiry_ms == 0 then expiry_ms = NEVER_MS end
    list[i] = { number = number, left = left, expiry_ms = expiry_ms, priority = priority }
  end
  return list_version, list, at
end

function read_tails(bytes, at)
  local tails = byte(bytes, at)
  at = at + 1
  windows, grants_version, grants, hold_list = {}, 0, {}, {}
  held, held_granted, earliest_expiry_ms, holds = 0, 0, 0, ''
  if tails % 2 >= WINDOWS then windows, at = read_windows(bytes, at) end
  if tails % 4 >= GRANTS then grants_version, grants, at = read_grants(bytes, at) end
  if tails % 8 >= HOLDS then
    held, held_granted, earliest_expiry_ms, at = unpack('>I4I4I6', bytes, at)
    for from = at, #bytes, EXTENDED_HOLD_BYTES do
      local id, plan, granted, hold_period, made_ms, expiry_ms = unpack(EXTENDED_HOLD, bytes, from)
      hold_list[#hold_list + 1] =
        { id = id, plan = plan, granted = granted, period = hold_period, made_ms = made_ms, expiry_ms = expiry_ms }
    end
  end
end

function pack_grants(list)
  local packed = {}
  for i = 1, #list do
    local grant = list[i]
    local expiry_ms = grant.expiry_ms < NEVER_MS and grant.expiry_ms or 0
    packed[i] = pack('>I6I4I6B', grant.number, grant.left, expiry_ms, grant.priority)
  end
  return char(#list) .. join(packed)
end

local function pack_holds(in_first_format)
  local packed = {}
  for i = 1, #hold_list do
    local hold = hold_list[i]
    if in_first_format then
      packed[i] = pack(WHOLE_HOLD, hold.id, hold.plan, hold.period, hold.expiry_ms)
    else
      packed[i] =
        pack(EXTENDED_HOLD, hold.id, hold.plan, hold.granted, hold.period, hold.made_ms, hold.expiry_ms)
    end
  end
  return join(packed)
end

-- Returns the format of the record, and what follows its base. Without windows and grants it is format 1 again. But a
-- record that has ever heard of grants keeps the version: an old list would bring a grant that is used up.
function write_tails()
  tidy_grants()
  local has_windows = windows[1] or (limits and limits[1])
  if grants_version == 0 and not (has_windows and hold_list[1]) and not windows[1] then
    packed_holds = pack_holds(true)
    return FORMAT, hold_list[1] and pack('>I4I6', held, earliest_expiry_ms) .. packed_holds or ''
  end
  local tails, written = 0, { '' }
  if windows[1] then
    tails = tails + WINDOWS
    written[2] = char(#windows)
    for i = 1, #windows do
      local window = windows[i]
      written[i + 2] = pack('>I2BI6I4', window.minutes, window.unit, window.start_ms, window.used)
    end
  end
  if grants_version > 0 then
    tails = tails + GRANTS
    written[#written + 1] = pack('>I6', grants_version) .. pack_grants(grants)
  end
  packed_holds = pack_holds(false)
  if hold_list[1] then
    tails = tails + HOLDS
    written[#written + 1] = pack('>I4I4I6', held, held_granted, earliest_expiry_ms) .. packed_holds
  end
  written[1] = char(tails)
  return EXTENDED_FORMAT, join(written)
end

end
