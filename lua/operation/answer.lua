-- Answers, and the outcomes that let a request be repeated.
--
-- Answer: status B, flags B; where flags say DETAILED: id c16, charged I4, overage I4, expiry I6; where they say
--   HOLDING: held I4, hold count B, and for peek the holds; then the record's base. A MISSING answer, and a SEED's,
--   is the status alone. Twin: src/store/redis/reply.rs
--
-- An outcome is kept under a key of its own with a time to live, not in the record: a record is read at every
-- message, an outcome only when its request comes again (decision 0006).
--
-- Defines: values, dirty, outcomes, answers, begin_answers, answer, answer_with, keep_outcome, replay

local values            -- what MGET found, by slot; a changed record replaces what was found
local dirty             -- slots of changed records
local outcomes          -- their slots and times to live in ms, in turn
local answers, answered -- pieces of the reply, in order; how many
local expired           -- holds that were found expired, and are gone now

local function begin_answers(found)
  values, dirty, outcomes = found, {}, {}
  answers, answered = {}, 0
  expired, expired_now = 0, 0
end

local function say(piece)
  answered = answered + 1
  answers[answered] = piece
end

-- An operation that changed the record says so by `changed`; one that did not leaves nothing behind.
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

-- The answer to nearly every message: what happened, and the record.
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

-- Keeps the answer that was just given for whoever repeats the request: fingerprint c16, then the answer as it is
-- then.
local function keep_answer(slot, fingerprint, ttl_ms)
  local first, base = answers[answered - 1], answers[answered]
  local flags = byte(first, 2) + REPLAYED
  keep_outcome(slot, fingerprint .. sub(first, 1, 1) .. char(flags) .. sub(first, 3) .. base, ttl_ms)
end

-- The first answer again, when this Idempotency-Key was used for this very request before. True when it was used.
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
