-- open: start a new generation if nothing has changed since the old streams were drained.
--
-- KEYS[1] the fence    KEYS[2] the generations    KEYS[3] the new stream    KEYS[4] the levels
-- KEYS[5..] the drained streams
-- ARGV[1] the new generation; the fence also names this Redis process, in the format of src/store/redis/fence.rs
-- ARGV[2] number of generations listed when the streams were read
-- ARGV[3] the quotas of the levels, in the format of lua/operation/levels.lua; newer ones stay
-- ARGV[4..] for each drained stream the id of its last entry ('' for none) and that entry's payload
-- Returns the fence if opened, nil if something has changed: then start again

local info = redis.call('INFO', 'server', 'replication')
local run_id, replication_id = string.match(info, 'run_id:(%x+)'), string.match(info, 'master_replid:(%x+)')

if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('EXISTS', KEYS[3]) == 1 then return false end
if redis.call('SCARD', KEYS[2]) ~= tonumber(ARGV[2]) then return false end

for i = 5, #KEYS do
  local drained_id, drained_payload = ARGV[2 * i - 6], ARGV[2 * i - 5]
  local last = redis.call('XREVRANGE', KEYS[i], '+', '-', 'COUNT', 1)[1]
  if (last and last[1] or '') ~= drained_id then return false end
  if last and last[2][2] ~= drained_payload then return false end
end

-- Allowed in a full Redis: what it deletes is more than what it adds, and nothing else would free the memory.
redis.call('XADD', KEYS[3], '0-1', 'e', '')
for i = 5, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('DEL', KEYS[2])
redis.call('SADD', KEYS[2], ARGV[1])
local levels = redis.call('GET', KEYS[4])
if not levels or struct.unpack('>I4', levels) < struct.unpack('>I4', ARGV[3]) then
  redis.call('SET', KEYS[4], ARGV[3])
end
local fence = ARGV[1] .. ' ' .. run_id .. ':' .. replication_id
redis.call('SET', KEYS[1], fence)
return fence
