-- The quotas of the levels, with which a record begins a period.
--
-- They are in Redis, not in the call: so all gates roll the records of a partition with the same quotas, also while one
-- of them has not read a change yet (decision 0018). Read only when a record rolls or its level changes, once in a
-- call; parsed only when they have changed.
--
-- Value: version I4, then code B and quota I4 of each level. Twin: src/store/redis/levels.rs
--
-- Defines: begin_levels, quota_for, levels_missing

local levels_key, levels_read, levels_missing
local parsed, quota_of   -- the value that was parsed last, and the quotas in it; they outlive a call

local function begin_levels(key)
  levels_key, levels_read, levels_missing = key, false, false
end

-- The quota of a level. Without the key the partition is not open, whatever the fence contains.
local function quota_for(code, otherwise)
  if not levels_read then
    levels_read = true
    local value = redis.call('GET', levels_key)
    if not value then
      levels_missing, parsed, quota_of = true, nil, {}
    elseif value ~= parsed then
      parsed, quota_of = value, {}
      for at = 5, #value, 5 do
        local level_code, level_quota = unpack('>BI4', value, at)
        quota_of[level_code] = level_quota
      end
    end
  end
  return quota_of[code] or otherwise
end
