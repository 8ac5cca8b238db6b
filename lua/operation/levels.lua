-- The quotas and limits of the levels, of the chat and of each other meter.
--
-- They are in Redis, not in the call: so all gates decide with the same ones, also while one of them has not read a
-- change yet (decision 0018). Each call reads the value together with the records, because limits bind every message;
-- it is parsed only when it has changed.
--
-- Value: version I4; then of each level: code B, quota I4, concurrency B (0: unlimited), number of windows B, and each
--   window: minutes I2, unit B, limit I4. The levels of the chat come first. Those of each other meter follow a byte 0,
--   which is no code of a level, and the meter's code B. Twin: src/store/redis/levels.rs
--
-- Defines: CHAT, PER_AP, PER_REQUEST, begin_levels, use_meter, quota_for, levels_missing, limits, take_limits

local CHAT = 0                     -- code of the chat's meter
local PER_AP, PER_REQUEST = 1, 2   -- units of windows

local level   -- the record's, read by record.lua
local levels_missing
local limits_of          -- of the meter in use: limits by level, nil if no level has any: its windows as a list, and
                         -- `concurrency`
local limits             -- those of the current record; nil for none
local begin_levels, use_meter, quota_for
do   -- Redis allows 200 locals of a script

local levels_value
local parsed, terms_of   -- the value that was parsed last, and what it says of each meter; they outlive a call
local meter, quota_of    -- the meter in use, and its quotas by level
local NO_TERMS = { quota_of = {} }

local function parse_levels(value)
  local terms = { quota_of = {} }
  parsed, terms_of = value, { [CHAT] = terms }
  local at = 5
  while at <= #value do
    if byte(value, at) == 0 then
      terms = { quota_of = {} }
      terms_of[byte(value, at + 1)] = terms
      at = at + 2
    end
    local code, level_quota, concurrency, windows_count
    code, level_quota, concurrency, windows_count, at = unpack('>BI4BB', value, at)
    terms.quota_of[code] = level_quota
    local of_level = { concurrency = concurrency }
    for i = 1, windows_count do
      local minutes, unit, limit
      minutes, unit, limit, at = unpack('>I2BI4', value, at)
      of_level[i] = { minutes = minutes, unit = unit, limit = limit }
    end
    if concurrency > 0 or windows_count > 0 then
      terms.limits_of = terms.limits_of or {}
      terms.limits_of[code] = of_level
    end
  end
end

-- From here on, quotas and limits are those of this meter.
function use_meter(code)
  local terms = terms_of[code] or NO_TERMS
  meter, quota_of, limits_of = code, terms.quota_of, terms.limits_of
end

function begin_levels(value)
  levels_value, levels_missing, limits = value, false, nil
  if value ~= parsed then
    if value then parse_levels(value) else parsed, terms_of = value, {} end
    meter = nil
  end
  if meter ~= CHAT then use_meter(CHAT) end
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
