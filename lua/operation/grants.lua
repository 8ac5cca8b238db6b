-- Grants: AP beside the quota of the level, which pay what the plan does not.
--
-- Live grants pay in the order of priority, expiry and number. A hold that was made before a grant expired may still be
-- paid by it: an expired grant stays in the record for as long as it backs such a hold, and pays for nothing else.
--
-- Defines: NEVER_MS, backing, live_grants, grant_free, take_from_grants, tidy_grants, begin_parts, parts

local NEVER_MS = 2 ^ 48   -- expiry of a grant that does not expire

local parts   -- what grants have paid in this operation, packed: number I6, AP I4

local function begin_parts()
  parts = {}
end

local live_grants, grant_free, take_from_grants, tidy_grants
do   -- Redis allows 200 locals of a script

local function by_expiry(one, other)
  if one.expiry_ms ~= other.expiry_ms then return one.expiry_ms < other.expiry_ms end
  return one.number < other.number
end

local function by_order_of_payment(one, other)
  if one.priority ~= other.priority then return one.priority < other.priority end
  return by_expiry(one, other)
end

-- Returns how much expired grants back of the live holds, and how much each of them does. The grant that expired first
-- is used first: it backs the fewest holds.
local function backing()
  local backed, backs, expired, needs = 0, {}, {}, {}
  for i = 1, #grants do
    if grants[i].expiry_ms <= record_ms then expired[#expired + 1] = grants[i] end
  end
  if not expired[1] then return backed, backs end
  table.sort(expired, by_expiry)
  for i = 1, #hold_list do needs[i] = hold_list[i].granted end
  for i = 1, #expired do
    local grant = expired[i]
    local rest = grant.left
    for n = 1, #hold_list do
      if hold_list[n].made_ms < grant.expiry_ms then
        local took = math.min(rest, needs[n])
        rest, needs[n] = rest - took, needs[n] - took
      end
    end
    backs[grant.number] = grant.left - rest
    backed = backed + grant.left - rest
  end
  return backed, backs
end

function live_grants()
  local live = {}
  for i = 1, #grants do
    if grants[i].expiry_ms > record_ms and grants[i].left > 0 then live[#live + 1] = grants[i] end
  end
  return live
end

-- AP of live grants that no hold needs.
function grant_free()
  local ap = 0
  for i = 1, #grants do
    if grants[i].expiry_ms > record_ms then ap = ap + grants[i].left end
  end
  return math.max(0, ap - math.max(0, held_granted - backing()))
end

-- Takes AP from grants and notes the parts. `made_ms`: when the hold was made that is paid, nil without a hold. Returns
-- what was taken.
function take_from_grants(ap, made_ms)
  if ap <= 0 then return 0 end
  local expired, live = {}, {}
  for i = 1, #grants do
    local grant = grants[i]
    if grant.expiry_ms > record_ms then
      live[#live + 1] = grant
    elseif made_ms and made_ms < grant.expiry_ms then
      expired[#expired + 1] = grant
    end
  end
  table.sort(expired, by_expiry)
  table.sort(live, by_order_of_payment)
  for i = 1, #live do expired[#expired + 1] = live[i] end
  local rest = ap
  for i = 1, #expired do
    local grant = expired[i]
    local took = math.min(rest, grant.left)
    if took > 0 then
      grant.left, rest = grant.left - took, rest - took
      parts[#parts + 1] = pack('>I6I4', grant.number, took)
    end
  end
  return ap - rest
end

-- Drops grants that are used up, and expired ones that back no hold.
function tidy_grants()
  if not grants[1] then return end
  local _, backs = backing()
  local kept = {}
  for i = 1, #grants do
    local grant = grants[i]
    if grant.left > 0 and (grant.expiry_ms > record_ms or (backs[grant.number] or 0) > 0) then
      kept[#kept + 1] = grant
    end
  end
  grants = kept
end

end
