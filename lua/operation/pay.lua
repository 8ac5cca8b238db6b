-- The decision for users with windows or grants: who pays what.
--
--   plan_free    min(quota - used - held, and for each window of AP: limit - used - held)
--   grant_free   AP of live grants that no hold needs
--   allowed      cost <= plan_free + grant_free, and each window of requests has room
--   The plan pays min(cost, plan_free), grants pay the rest.
--
-- Defines: admits, pay_message, hold_parts, pay_commit

local admits, pay_message, hold_parts, pay_commit
do   -- Redis allows 200 locals of a script

-- What the plan can pay now.
local function plan_free()
  local ap = free()
  for i = 1, limits and #limits or 0 do
    if limits[i].unit == PER_AP then ap = math.min(ap, room_in(limits[i])) end
  end
  return math.max(0, ap)
end

function admits(cost)
  return cost <= plan_free() + grant_free() and has_room_for_request()
end

-- The blocks of the event: when the hold was made, what windows have counted, what grants have paid. nil for none.
local function event_blocks(made_ms, plan)
  local blocks = made_ms > 0 and '\2' .. pack('>I6', made_ms) or ''
  if counted[1] then blocks = blocks .. '\3' .. char(#counted) .. join(counted) end
  if parts[1] then blocks = blocks .. '\4' .. pack('>I4B', plan, #parts) .. join(parts) end
  return blocks ~= '' and blocks or nil
end

-- Counts a new message in the windows of the level: what the plan pays, and the request.
local function count_message(plan, is_hold)
  for i = 1, limits and #limits or 0 do
    local amount = limits[i].unit == PER_REQUEST and 1 or plan
    if amount > 0 then count_in(limits[i], is_hold and 0 or amount, false) end
  end
end

-- Charges a message that is admitted. Returns the blocks of its event.
function pay_message(cost)
  begin_counts()
  begin_parts()
  local plan = math.min(cost, plan_free())
  count_message(plan, false)
  charge_parts(plan, take_from_grants(cost - plan), period)
  return event_blocks(0, plan)
end

-- Holds AP for a message that is admitted. Returns what grants are to pay. The windows that it counts in begin now.
function hold_parts(id, cost, expiry_ms)
  begin_counts()
  local plan = math.min(cost, plan_free())
  count_message(plan, true)
  add_hold(id, plan, period, expiry_ms, cost - plan, record_ms)
  return cost - plan
end

-- Charges a commit whose hold, if it was live, has been removed from the record.
--   hold: AP that the plan was to pay and grants were to pay, when it was made, its period
--   is_live: whether the hold was live; keeps_place: whether it still counts in the window in which it was made;
--   covers_plan: whether the plan pays its part in any case
-- A live hold has its AP. What is beyond is paid by what is free now: the plan only in the hold's own period, and
-- grants in any. Of a period that has ended it is not known any more what was free, so grants do not pay that part
-- either.
-- Returns what was charged, what grants paid of it, and the blocks of the event.
function pay_commit(ap, hold, is_live, keeps_place, covers_plan)
  begin_counts()
  begin_parts()
  local plan = covers_plan and math.min(ap, hold.plan) or 0
  local granted = is_live and take_from_grants(math.min(ap - plan, hold.granted), hold.made_ms) or 0
  local rest, extra, of_plan = ap - plan - granted, 0, 0

  local inside = {}
  for i = 1, limits and #limits or 0 do
    local window = window_for(limits[i])
    inside[i] = window ~= nil and keeps_place and hold.made_ms >= window.start_ms
  end
  if hold.period == period then
    extra = math.min(rest, free() - plan)
    for i = 1, limits and #limits or 0 do
      if limits[i].unit == PER_AP then extra = math.min(extra, room_in(limits[i]) - (inside[i] and plan or 0)) end
    end
    extra = math.max(0, extra)
  elseif not is_live then
    of_plan = math.min(ap, hold.plan) - plan
  end
  granted = granted + take_from_grants(math.min(rest - extra - of_plan, grant_free()))

  -- A hold whose window is over counts nowhere, except what it takes beyond. An expired one gave its place back.
  for i = 1, limits and #limits or 0 do
    local amount = inside[i] and plan + extra or extra
    if limits[i].unit == PER_REQUEST then amount = (inside[i] or not is_live) and 1 or 0 end
    if amount > 0 then count_in(limits[i], amount, inside[i]) end
  end
  charge_parts(plan + extra, granted, hold.period)
  return plan + extra + granted, granted, event_blocks(hold.made_ms, plan + extra)
end

end
