-- sweep: clean up the records of inactive users.
--
-- Deletes a record that was last changed before a given time if all its charges are in Postgres; it is loaded again
-- from there. If all holds of a record have expired, rewrites the record without them.
--
-- KEYS[1] the fence    KEYS[2] the stream    KEYS[3..] records
-- ARGV[1] the generation that must be open    ARGV[2] the watermark's id
-- ARGV[3] delete records last changed before this time, in ms
-- Returns { deleted, freed }, or -1 if the fence does not name this generation
-- Layout of a record: lua/operation/record.lua and tails.lua

local BASE_BYTES, FORMATS, EXTENDED_FORMAT = 40, 8, 2
local WINDOWS, GRANTS, HOLDS = 1, 2, 4   -- tails of a record of format 2

-- Returns the position of the first hold, the length of a hold, the position of its expiry in it, and what precedes the
-- holds without counting them, after the base; nil for a record without holds.
local function holds_of(bytes)
  if string.byte(bytes) % FORMATS ~= EXTENDED_FORMAT then
    if #bytes > BASE_BYTES then return BASE_BYTES + 11, 29, 23, '' end
    return nil
  end
  local tails, at = string.byte(bytes, BASE_BYTES + 1), BASE_BYTES + 2
  if tails < HOLDS then return nil end
  if tails % 2 >= WINDOWS then at = at + 1 + 13 * string.byte(bytes, at) end
  if tails % 4 >= GRANTS then at = at + 7 + 17 * string.byte(bytes, at + 6) end
  local others = string.char(tails - HOLDS) .. string.sub(bytes, BASE_BYTES + 2, at - 1)
  return at + 14, 39, 33, others
end

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
    elseif #bytes > BASE_BYTES then
      local first, length, expiry_at, others = holds_of(bytes)
      local expired = first ~= nil
      for at = first or #bytes + 1, #bytes, length or 1 do
        local expiry_ms = struct.unpack('>I6', bytes, at + expiry_at)
        if expiry_ms > now_ms then expired = false end
      end
      if expired then
        local head, new_version = string.sub(bytes, 1, 34), struct.pack('>I6', math.max(version + 1, now_ms))
        redis.call('SET', KEYS[i], head .. new_version .. others)
        freed = freed + 1
      end
    end
  end
end
return { deleted, freed }
