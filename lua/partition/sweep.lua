-- sweep: clean up the records of inactive users.
--
-- Deletes a record that was last changed before a given time if all its charges are in Postgres; it is loaded again
-- from there. If all holds of a record have expired, rewrites the record without them.
--
-- KEYS[1] the fence    KEYS[2] the stream    KEYS[3..] records
-- ARGV[1] the generation that must be open    ARGV[2] the watermark's id
-- ARGV[3] delete records last changed before this time, in ms
-- Returns { deleted, freed }, or -1 if the fence does not name this generation
-- Layout of a record: lua/operation/record.lua

local fence = redis.call('GET', KEYS[1])
if not fence or string.match(fence, '^%d+') ~= ARGV[1] then return -1 end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local untouched_since_ms = tonumber(ARGV[3])

-- All charges before the first unflushed entry are in Postgres.
local unflushed = redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+', 'COUNT', 1)[1]
local flushed_until_ms = unflushed and tonumber(string.match(unflushed[1], '^%d+')) or now_ms

local deleted, freed = 0, 0
for i = 3, #KEYS do
  local bytes = redis.call('GET', KEYS[i])
  if bytes then
    local version = struct.unpack('>I6', bytes, 35)
    if version < untouched_since_ms and version < flushed_until_ms then
      redis.call('UNLINK', KEYS[i])
      deleted = deleted + 1
    elseif #bytes > 40 then
      local expired = true
      for at = 51, #bytes, 29 do
        local expiry_ms = struct.unpack('>I6', bytes, at + 23)
        if expiry_ms > now_ms then expired = false end
      end
      if expired then
        redis.call('SET', KEYS[i], string.sub(bytes, 1, 34) .. struct.pack('>I6', math.max(version + 1, now_ms)))
        freed = freed + 1
      end
    end
  end
end
return { deleted, freed }
