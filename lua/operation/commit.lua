-- commit: charge what was generated and give the rest of the hold back.
--
-- The hold's own period is charged:
--   live hold                        covers its AP, even if its period is over
--   expired hold                     gave its AP back; charged what is free
--   expired hold of an ended period  what was free is unknown; charged only if it outlived the period: the next one
--                                    began on or before the day of its expiry
--   hold accepted in time            covers its AP, as a live hold
-- What is not charged is overage.
--
-- A commit that Postgres accepted while Redis was unavailable counts as made at that time. If its hold was live then,
-- the hold covers it, even if it has expired meanwhile and other messages have used its AP: only then can `used` exceed
-- the quota (decision 0020). A degraded reservation, of generation 0, never held anything and covers nothing.
-- The settlement of an accepted commit is kept longer, because it may be applied late. By then the settlement of a
-- first attempt, whose answer was lost, may be gone: the answer is UNKNOWN_HOLD, and the gate checks the usage log.
--
-- A message that was allowed while Redis was unavailable, and that the quota does not cover now, is a commit too. If it
-- had an Idempotency-Key, a repeat is recognized.
--
-- Users with windows or grants: pay.lua.
--
-- Arguments: AP I4; the reservation: AP I4, of it AP that grants are to pay I4, made I6 (0: not known), period code I3,
--            expiry I6, day of its expiry I2, generation I4; adopt B; time when Postgres
--            accepted it in ms I6, 0 for a commit made now; keyed B, if 1 what idempotency.lua reads; then the event's
--            tail
-- Answer:    OK with charged and overage, LATE, REPLAYED | UNKNOWN_HOLD | EXPIRED | SETTLED | MISMATCH

local function commit(op, at, slot, outcome)
  local ap, reserved, granted, made_ms, hold_period, expiry_ms, expiry_day, hold_generation, adopt, accepted_ms, keyed,
    tail_at = unpack('>I4I4I4I6I3I6I2I4BI6B', op, at)
  reserved = reserved - granted
  if keyed == 1 then tail_at = read_key(op, tail_at) end
  local at_ms = accepted_ms > 0 and accepted_ms or now_ms
  local id = sub(op, tail_at, tail_at + 15)

  local state, settled_ap, settled_charge = settlement_of(outcome)
  if state == RELEASED then return answer(slot, false, SETTLED) end
  if state and settled_ap ~= ap then return answer(slot, false, MISMATCH) end
  if state then
    if keyed == 1 then remember(id) end
    local flags = state == COMMITTED_LATE and REPLAYED + LATE or REPLAYED
    return answer_with(slot, false, OK, flags, id, settled_charge, ap - settled_charge, 0)
  end

  local place, held_ap, held_period, held_until_ms, to_be_granted, held_since_ms = find_hold(id)
  if place then
    reserved, hold_period, expiry_ms = held_ap, held_period, held_until_ms
    granted, made_ms = to_be_granted or 0, held_since_ms or 0
    remove_hold(id)
  elseif at_ms > expiry_ms + SETTLE_WINDOW_MS then
    return answer(slot, false, EXPIRED)
  elseif may_be_settled_elsewhere(hold_generation, adopt) or may_be_forgotten(accepted_ms, adopt) then
    return answer(slot, false, UNKNOWN_HOLD)
  end

  local is_current = same_period(hold_period, period)
  if not is_current and first_day(hold_period) > first_day(period) then
    roll_to(with_anchor(hold_period, period))
    use_limits()
    is_current = true
  end
  local accepted_in_time = accepted_ms > 0 and accepted_ms < expiry_ms and hold_generation > 0
  local is_covered = place or accepted_in_time or
    not is_current and first_day(period) <= expiry_day and hold_generation == generation
  local late = at_ms >= expiry_ms
  local charged, paid, blocks
  if windows then
    local hold = { plan = reserved, granted = granted, made_ms = made_ms, period = hold_period }
    charged, paid, blocks = pay_commit(ap, hold, place ~= nil, place or accepted_in_time, is_covered)
  else
    local chargeable = is_covered and reserved or 0
    if is_current then
      local unheld = free()
      if unheld > chargeable then chargeable = unheld end
    end
    charged = ap < chargeable and ap or chargeable
    charge(charged, hold_period)
  end
  journal(late and LATE_COMMIT or COMMIT, hold_period, charged, ap - charged, sub(op, tail_at), blocks)
  keep_settlement(outcome, late and COMMITTED_LATE or COMMITTED, ap, charged,
    accepted_ms > 0 and now_ms + ACCEPTED_KEPT_MS or expiry_ms)
  if keyed == 1 then remember(id) end
  answer_with(slot, true, OK, late and LATE or 0, id, charged, ap - charged, 0, nil, paid, made_ms)
end
