-- The clock.
--
-- Redis TIME determines the current period and day and which holds have expired, so all gates use the same clock
-- even if their own clocks differ. It is read once per call: all operations of a call happen at the same moment.
-- (Tests that change the time replace only this file.)
--
-- Defines: read_clock

local function read_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
