-- forget: replace a user's record by a mark that no operation uses; unless it may be any, only if it is still the one
-- that was read.
--
-- The mark is a record without usage, of a generation that never opens: operations answer MISSING, and a seed that was
-- read before the user's row was renamed finds a newer record. It expires.
--
-- KEYS[1] the record
-- ARGV[1] the record that was read, empty for none    ARGV[2] the mark    ARGV[3] how long it is kept, in ms
-- ARGV[4] 1: the record may be any
-- Returns 1, or 0 if the record has changed

if ARGV[4] ~= '1' and (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
