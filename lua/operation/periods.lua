-- Periods: when a user's period ends, and which of two is later.
--
-- A period begins on a day and has an anchor day (twin: src/domain/calendar.rs). It ends on the first anchor date that
-- is at least 28 days after its first day. A period code has both (decision 0022):
--   YYYYMM                               a calendar month, anchor 1
--   2^23 + anchor * 2^16 + first day     any other; days since 1970-01-01
-- Most users have the first form, and `current_month` if they were charged in this month. Codes of two forms or anchors
-- are compared by their first day.
--
-- Arguments of a call: day I2, end of the day in ms I6, day of the month B, month I3, next month I3, and the number of
-- days of the previous month, the month and the next month B B B. The day is that of one minute ago.
--
-- Defines: current_month, current_day; begin_periods, first_day, same_period, with_anchor, later_period

local current_month, current_day
local begin_periods, first_day, same_period, with_anchor, later_period
do   -- Redis allows 200 locals of a script

local ANCHORED, PER_ANCHOR = 8388608, 65536
local PERIOD_DAYS_MIN = 28

local day_of_month, previous_length, month_length
local first_days = {}   -- first day of each month that was asked for; outlives a call

function begin_periods(args)
  local day_end_ms, next_month, next_length
  current_day, day_end_ms, day_of_month, current_month, next_month, previous_length, month_length, next_length =
    unpack('>I2I6BI3I3BBB', args[2], CALENDAR_AT)
  if now_ms < day_end_ms then return end
  current_day = current_day + 1
  if day_of_month < month_length then
    day_of_month = day_of_month + 1
  else
    day_of_month, current_month = 1, next_month
    previous_length, month_length = month_length, next_length
  end
end

-- The first day of a month, in days since 1970-01-01:
-- http://howardhinnant.github.io/date_algorithms.html#days_from_civil
local function first_day_of_month(month)
  local year, number = math.floor(month / 100), month % 100
  if number <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local year_of_era = year - era * 400
  local day_of_year = math.floor((153 * ((number + 9) % 12) + 2) / 5)
  local day_of_era = year_of_era * 365 + math.floor(year_of_era / 4) - math.floor(year_of_era / 100) + day_of_year
  return era * 146097 + day_of_era - 719468
end

function first_day(code)
  if code >= ANCHORED then return code % PER_ANCHOR end
  local known = first_days[code]
  if not known then
    known = first_day_of_month(code)
    first_days[code] = known
  end
  return known
end

function same_period(one, other)
  return one == other or first_day(one) == first_day(other)
end

local function anchor_of(code)
  if code < ANCHORED then return 1 end
  return math.floor((code - ANCHORED) / PER_ANCHOR)
end

local function code_of(day, anchor)
  if anchor == 1 and day == first_day(current_month) then return current_month end
  return ANCHORED + anchor * PER_ANCHOR + day
end

-- The period of `code` with the anchor of `other`.
function with_anchor(code, other)
  local anchor = anchor_of(other)
  if anchor_of(code) == anchor then return code end
  return code_of(first_day(code), anchor)
end

-- The period that has begun after this one, or nil if this one is not over.
function later_period(code)
  local anchor = anchor_of(code)
  local date = anchor < month_length and anchor or month_length
  local newest
  if day_of_month >= date then
    newest = current_day - day_of_month + date
  else
    date = anchor < previous_length and anchor or previous_length
    newest = current_day - day_of_month - previous_length + date
  end
  if newest - first_day(code) >= PERIOD_DAYS_MIN then return code_of(newest, anchor) end
end

end
