-- trim: drop what Postgres has, up to the watermark before the last. The anchor stays.
--
-- Looks for the anchor first: an older copy of Redis may have come back since the flusher read, and what it
-- holds is not in Postgres.
--
-- KEYS[1] the stream
-- ARGV[1] id of the anchor, ARGV[2] its last event (16 bytes; zeros for genesis), ARGV[3] keep from this id on
-- Returns how many entries were dropped, -1 when the anchor is not there

local anchor = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not anchor then return -1 end
local payload = anchor[2][2]
local last_event = payload == '' and string.rep('\0', 16) or string.sub(payload, 8, 23)
if last_event ~= ARGV[2] then return -1 end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[3])
