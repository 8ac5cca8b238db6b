-- The quotas and limits of the levels.
--
-- They are in Redis, not in the call: so all gates decide with the same ones, also while one of them has not read a
-- change yet (decision 0018). Each call reads the value together with the records, because limits bind every message;
-- it is parsed only when it has changed.
--
-- Value: version I4; then of each level: code B, quota I4, concurrency B (0: unlimited), number of windows B, and each
--   window: minutes I2, unit B, limit I4. Twin: src/store/redis/levels.rs
--
-- Defines: PER_AP, PER_REQUEST, begin_levels, quota_for, levels_missing, limits, take_limits

local PER_AP, PER_REQUEST = 1, 2   -- units of windows

local level   -- the record's, read by record.lua
local levels_missing
local limits_of          -- limits by level, nil if no level has any: its windows as a list, and `concurrency`
local limits             -- those of the current record; nil for none
local begin_levels, quota_for
do   -- Redis allows 200 locals of a script

local levels_value
local parsed, quota_of   -- the value that was parsed last, and the quotas in it; they outlive a call

local function parse_levels(value)
  parsed, quota_of, limits_of = value, {}, nil
  local at = 5
  while at <= #value do
    local code, level_quota, concurrency, windows_count
    code, level_quota, concurrency, windows_count, at = unpack('>BI4BB', value, at)
    quota_of[code] = level_quota
    local of_level = { concurrency = concurrency }
    for i = 1, windows_count do
      local minutes, unit, limit
      minutes, unit, limit, at = unpack('>I2BI4', value, at)
      of_level[i] = { minutes = minutes, unit = unit, limit = limit }
    end
    if concurrency > 0 or windows_count > 0 then
      limits_of = limits_of or {}
      limits_of[code] = of_level
    end
  end
end

function begin_levels(value)
  levels_value, levels_missing, limits = value, false, nil
  if not value then
    parsed, quota_of, limits_of = nil, {}, nil
  elseif value ~= parsed then
    parse_levels(value)
  end
end

-- The quota of a level. Without the key the partition is not open, whatever the fence contains.
function quota_for(code, otherwise)
  if not levels_value then levels_missing = true end
  return quota_of[code] or otherwise
end

end

-- Sets the limits of the current record.
local function take_limits()
  limits = limits_of and limits_of[level]
end
