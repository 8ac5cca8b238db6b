-- close: remove the fence if it is still the expected one. From then on every operation answers STALE.
--
-- KEYS[1] the fence    ARGV[1] the expected fence, '' for none
-- Returns 1 if closed (also if there was no fence to begin with), 0 if the fence has changed

local fence = redis.call('GET', KEYS[1]) or ''
if fence ~= ARGV[1] then return 0 end
if fence ~= '' then redis.call('DEL', KEYS[1]) end
return 1
