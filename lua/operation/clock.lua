-- The clock.
--
-- Redis TIME decides what period and day it is and which holds have expired: every gate sees the
-- same clock, however far apart the gates' own clocks are. It is read once, so that one call
-- happens at one moment. (Tests that travel in time replace this file and nothing else.)
--
-- Defines: read_clock

local function read_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
