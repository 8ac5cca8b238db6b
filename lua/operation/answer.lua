-- Answers, and the outcomes that make a settlement repeatable.
--
-- Answer: status B, flags B; with DETAILED: id c16, charged I4, overage I4, expiry I6; with PINNED: the hold's
--   generation I4 and period I3; with HOLDING: held I4, hold count B; then the record's base, and for peek the holds.
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
  local base = pack(BASE, FORMAT + record_flags, generation, period, level, quota, pending, level_version, used,
    total_used, day, used_today, version)
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

-- The answer to an operation on a hold, or to a repeat. `pinned`: generation and period of a hold that may be older
-- than the record.
local function answer_with(slot, changed, status, flags, id, charged, overage, expiry_ms, pinned)
  local base = base_after(slot, changed)
  flags = flags + DETAILED + HOLDING
  if pinned then flags = flags + PINNED end
  answers[answered + 1] = pack('>BBc16I4I4I6', status, flags, id, charged, overage, expiry_ms)
  answers[answered + 2] = pinned or ''
  answers[answered + 3] = pack('>I4B', held, 0)
  answers[answered + 4] = base
  answered = answered + 4
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
