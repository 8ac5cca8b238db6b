-- The same decision without packed records and without batches: one user per call, the state in a hash.
-- A baseline for benches/script.rs; the gate does not use it.
--
-- KEYS: the fence, the user's hash, the stream   ARGV: the fence, period, day, cost, event (packed)

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('STALE') end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local period, day, cost = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local state = redis.call('HMGET', KEYS[2], 'generation', 'period', 'level', 'quota', 'pending', 'used', 'total_used', 'day',
  'used_today', 'version')
if not state[1] then return redis.error_reply('MISSING') end
local used, used_today = tonumber(state[6]), tonumber(state[9])
if tonumber(state[2]) < period then used = 0 end
if tonumber(state[8]) < day then used_today = 0 end
if used + cost > tonumber(state[4]) then return { 0, used, state[4] } end

redis.call('XADD', KEYS[3], 'NOMKSTREAM', '*', 'e', ARGV[5])
local version = math.max(tonumber(state[10]) + 1, now_ms)
redis.call('HSET', KEYS[2], 'generation', ARGV[1], 'period', period, 'level', state[3], 'quota', state[4], 'pending', state[5],
  'used', used + cost, 'total_used', state[7] + cost, 'day', day, 'used_today', used_today + cost, 'version', version)
return { 1, used + cost, state[4], state[7] + cost, used_today + cost, version }
