-- levels: store the quotas of the levels, unless newer ones are stored.
--
-- KEYS[1] the fence    KEYS[2] the levels
-- ARGV[1] the generation that must be open    ARGV[2] the levels, in the format of lua/operation/levels.lua
-- Returns 1 if these or newer levels are stored, 0 if the fence does not name this generation

local fence = redis.call('GET', KEYS[1])
if not fence or string.match(fence, '^%d+') ~= ARGV[1] then return 0 end

local known = redis.call('GET', KEYS[2])
if not known or struct.unpack('>I4', known) < struct.unpack('>I4', ARGV[2]) then
  redis.call('SET', KEYS[2], ARGV[2])
end
return 1
