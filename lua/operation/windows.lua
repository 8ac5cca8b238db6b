-- Windows: limits of a level that are shorter than its period.
--
-- A window of a user runs from its start for its length. It begins with the first charge or hold that it counts, and
-- again if one arrives while nothing of it is used or held. A hold counts in the window that was running when it was
-- made. Windows of AP count what the plan pays; those of requests count messages.
--
-- Defines: drop_ended_windows, held_in, window_for, room_in, has_room_for_request, count_in, begin_counts, counted

local MINUTE_MS = 60000

local counted   -- what this operation has counted, packed: minutes I2, unit B, start I6, amount I4

local function begin_counts()
  counted = {}
end

local function drop_ended_windows()
  local running = {}
  for i = 1, #windows do
    local window = windows[i]
    if record_ms < window.start_ms + window.minutes * MINUTE_MS then running[#running + 1] = window end
  end
  windows = running
end

-- The running window of this limit, or nil.
local function window_for(limit)
  for i = 1, #windows do
    local window = windows[i]
    if window.minutes == limit.minutes and window.unit == limit.unit then return window end
  end
end

-- What live holds hold in a running window.
local function held_in(window)
  local sum = 0
  for i = 1, #hold_list do
    local hold = hold_list[i]
    if hold.made_ms >= window.start_ms then sum = sum + (window.unit == PER_AP and hold.plan or 1) end
  end
  return sum
end

-- What a limit still allows; below 0 if it was lowered.
local function room_in(limit)
  local window = window_for(limit)
  return window and limit.limit - window.used - held_in(window) or limit.limit
end

local function has_room_for_request()
  for i = 1, limits and #limits or 0 do
    if limits[i].unit == PER_REQUEST and room_in(limits[i]) < 1 then return false end
  end
  return true
end

-- Counts in the running window, and begins one where none runs or the running one is empty. `inside`: what is counted
-- belongs to a hold that was made in the running window.
local function count_in(limit, amount, inside)
  local window = window_for(limit)
  if not window then
    window = { minutes = limit.minutes, unit = limit.unit, start_ms = record_ms, used = 0 }
    windows[#windows + 1] = window
  elseif not inside and window.used + held_in(window) == 0 then
    window.start_ms = record_ms
  end
  window.used = window.used + amount
  if amount > 0 then
    counted[#counted + 1] = pack('>I2BI6I4', limit.minutes, limit.unit, window.start_ms, amount)
  end
end
