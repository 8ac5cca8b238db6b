-- Answers, and the outcomes that make a settlement repeatable.
--
-- Answer: status B, flags B; with DETAILED: id c16, charged I4, overage I4, expiry I6; with PARTS: granted I4 (of what
--   was charged or held), when the hold was made I6; with PINNED: the hold's generation I4 and period I3; with HOLDING:
--   held I4, hold count B; then the record's base, and for peek the holds, in the format of the record.
--   With LIMITS, of a user whose level has limits or who has had grants, follow:
--     concurrency B (0: unlimited), live holds B, earliest expiry of them I6
--     number of windows B; each: minutes I2, unit B, limit I4, start I6 (0: not running), used I4, held I4
--     held AP that grants are to pay I4, AP of grants that is free I4; version and live grants as in a record
--   MISSING and the answer to SEED are the status alone. Twin: src/store/redis/reply.rs
--
-- An outcome has its own key with a time to live. It is not part of the record, because a record is read for every
-- message but an outcome only when its request is repeated (decision 0006).
--
-- Defines: values, dirty, outcomes, answers, begin_answers, answer, answer_with, keep_outcome, replay_first_format

local values            -- values that MGET returned, by slot; a changed record replaces its value
local dirty             -- slots of changed records
local outcomes          -- slot and time to live in ms of each new outcome, alternating
local answers, answered -- pieces of the reply in order, and their number
local expired           -- number of expired holds that were removed

local function begin_answers(found)
  values, dirty, outcomes = found, {}, {}
  answers, answered = {}, 0
  expired, expired_now = 0, 0
end

local function say(piece)
  answered = answered + 1
  answers[answered] = piece
end

-- Returns the record's base. With `changed`, also raises the version and marks the record for writing.
local function base_after(slot, changed)
  if changed then
    version = version + 1
    if version < now_ms then version = now_ms end
    expired = expired + expired_now
  end
  expired_now = 0
  local format, tails = FORMAT, nil
  if windows then format, tails = write_tails() end
  local base = pack(BASE, record_flags + format, generation, period, level, quota, pending, level_version, used,
    total_used, day, used_today, version)
  if changed then
    if tails then
      values[slot] = base .. tails
    else
      values[slot] = holds == '' and base or base .. pack('>I4I6', held, earliest_expiry_ms) .. holds
    end
    dirty[slot] = true
  end
  return base
end

-- What a record of format 2, or a level with limits, has beyond the plain numbers. Follows base_after.
local function limits_after()
  local live, said = live_holds(), {}
  said[1] = pack('>BBI6B', limits and limits.concurrency or 0, live, earliest_expiry_ms, limits and #limits or 0)
  for i = 1, limits and #limits or 0 do
    local limit = limits[i]
    local window = windows and window_for(limit)
    said[i + 1] = window
      and pack('>I2BI4I6I4I4', limit.minutes, limit.unit, limit.limit, window.start_ms, window.used, held_in(window))
      or pack('>I2BI4I6I4I4', limit.minutes, limit.unit, limit.limit, 0, 0, 0)
  end
  if windows then
    local usable = live_grants()
    local free_ap = math.min(grant_free(), 2 ^ 32 - 1)
    said[#said + 1] = pack('>I4I4I6', held_granted, free_ap, grants_version) .. pack_grants(usable)
  else
    said[#said + 1] = pack('>I4I4I6B', 0, 0, 0, 0)
  end
  return join(said)
end

-- The answer to most messages: status and record.
local OK_ALONE = '\0\0'
local function answer(slot, changed, status)
  local base = base_after(slot, changed)
  if limits or windows then
    say(pack('>BBI4B', status, HOLDING + LIMITS, held, 0))
    say(base)
    return say(limits_after())
  end
  if holds ~= '' then
    answers[answered + 1] = pack('>BBI4B', status, HOLDING, held, 0)
  else
    answers[answered + 1] = status == OK and OK_ALONE or char(status, 0)
  end
  answers[answered + 2] = base
  answered = answered + 2
end

-- The answer to an operation on a hold, or to a repeat. `pinned`: generation and period of a hold that may be older
-- than the record. `granted`, `made_ms`: AP of grants, and when the hold was made, for a user with windows or grants.
local function answer_with(slot, changed, status, flags, id, charged, overage, expiry_ms, pinned, granted, made_ms)
  local base = base_after(slot, changed)
  flags = flags + DETAILED + HOLDING
  if pinned then flags = flags + PINNED end
  if granted then
    flags = flags + PARTS
    pinned = pack('>I4I6', granted, made_ms) .. (pinned or '')
  end
  if limits or windows then flags = flags + LIMITS end
  answers[answered + 1] = pack('>BBc16I4I4I6', status, flags, id, charged, overage, expiry_ms)
  answers[answered + 2] = pinned or ''
  answers[answered + 3] = pack('>I4B', held, 0)
  answers[answered + 4] = base
  answered = answered + 4
  if limits or windows then say(limits_after()) end
end

local function keep_outcome(slot, value, ttl_ms)
  values[slot] = value
  local n = #outcomes
  outcomes[n + 1], outcomes[n + 2] = slot, ttl_ms
end

-- Repeats an answer that version 0.1.0 has kept under a key of its own, during an upgrade. Returns false without one.
-- Its format: fingerprint c16, then the answer with REPLAYED set.
local function replay_first_format(slot, outcome, fingerprint)
  local kept = values[outcome]
  if not kept then return false end
  if sub(kept, 1, #fingerprint) == fingerprint then
    say(sub(kept, 17))
  else
    answer(slot, false, MISMATCH)
  end
  return true
end
