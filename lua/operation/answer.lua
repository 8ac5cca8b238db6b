-- Answers, and the outcomes that make a request repeatable.
--
-- Answer: status B, flags B; with DETAILED: id c16, charged I4, overage I4, expiry I6; with HOLDING: held I4,
--   hold count B; then the record's base, and for peek the holds. MISSING and the answer to SEED are the status alone.
--   Twin: src/store/redis/reply.rs
--
-- An outcome has its own key with a time to live. It is not part of the record, because a record is read for every
-- message but an outcome only when its request is repeated (decision 0006).
--
-- Defines: values, dirty, outcomes, answers, begin_answers, answer, answer_with, keep_outcome, replay

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
  local base = pack(BASE, FORMAT, generation, period, level, quota, pending, level_version, used, total_used, day,
    used_today, version)
  if changed then
    values[slot] = holds == '' and base or base .. pack('>I4I6', held, earliest_expiry_ms) .. holds
    dirty[slot] = true
  end
  return base
end

-- The answer to most messages: status and record.
local OK_ALONE = '\0\0'
local function answer(slot, changed, status)
  local base = base_after(slot, changed)
  if holds ~= '' then
    answers[answered + 1] = pack('>BBI4B', status, HOLDING, held, 0)
  else
    answers[answered + 1] = status == OK and OK_ALONE or char(status, 0)
  end
  answers[answered + 2] = base
  answered = answered + 2
end

-- The answer to an operation on a hold.
local function answer_with(slot, changed, status, flags, id, charged, overage, expiry_ms)
  local base = base_after(slot, changed)
  answers[answered + 1] =
    pack('>BBc16I4I4I6I4B', status, flags + DETAILED + HOLDING, id, charged, overage, expiry_ms, held, 0)
  answers[answered + 2] = base
  answered = answered + 2
end

local function keep_outcome(slot, value, ttl_ms)
  values[slot] = value
  local n = #outcomes
  outcomes[n + 1], outcomes[n + 2] = slot, ttl_ms
end

-- Stores the last answer for repeats of the request: fingerprint c16, then the answer with REPLAYED set.
local function keep_answer(slot, fingerprint, ttl_ms)
  local first, base = answers[answered - 1], answers[answered]
  local flags = byte(first, 2) + REPLAYED
  keep_outcome(slot, fingerprint .. sub(first, 1, 1) .. char(flags) .. sub(first, 3) .. base, ttl_ms)
end

-- Returns true if this Idempotency-Key was used before. Then repeats the first answer, or answers MISMATCH if the
-- request is a different one.
local function replay(slot, outcome, fingerprint)
  local kept = values[outcome]
  if not kept then return false end
  if sub(kept, 1, 16) == fingerprint then
    say(sub(kept, 17))
  else
    answer(slot, false, MISMATCH)
  end
  return true
end
