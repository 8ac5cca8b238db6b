-- trim: delete the entries that Postgres has, up to the previous watermark. The anchor stays.
--
-- Checks for the anchor first: an older copy of Redis may have replaced this one since the flusher read the stream, and
-- its entries are not in Postgres.
--
-- KEYS[1] the stream
-- ARGV[1] id of the anchor, ARGV[2] its last event (16 bytes; zeros for genesis), ARGV[3] keep from this id on
-- Returns the number of deleted entries, or -1 if the anchor is missing

local anchor = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not anchor then return -1 end
local payload = anchor[2][2]
local last_event = payload == '' and string.rep('\0', 16) or string.sub(payload, 8, 23)
if last_event ~= ARGV[2] then return -1 end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[3])
