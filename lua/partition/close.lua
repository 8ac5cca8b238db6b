-- close: take the fence away, if it is still the one that was seen. From here every operation answers STALE.
--
-- KEYS[1] the fence    ARGV[1] the fence that was seen, '' for none
-- Returns 1 when closed (also when there was no fence to begin with), 0 when another fence stands there now

local fence = redis.call('GET', KEYS[1]) or ''
if fence ~= ARGV[1] then return 0 end
if fence ~= '' then redis.call('DEL', KEYS[1]) end
return 1
