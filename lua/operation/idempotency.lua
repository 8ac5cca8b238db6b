-- Idempotency: what was answered first to a request with an Idempotency-Key, so that a repeat is recognized.
--
-- The answers of a partition are spread over 4,096 buckets. A bucket is a hash, and Redis packs a small hash into one
-- string: an answer takes some 50 bytes instead of the 270 of a key of its own (decision 0021).
--   field ''       when the bucket expires I4 (Unix seconds)
--   other fields   digest of user and key c10
--   value          fingerprint c4, kept until I4 (Unix seconds), id c16;
--                  for a reservation also: expiry I6, generation I4, period I3
-- When an answer would outlive its bucket, the bucket drops what has expired and lives a quarter of the time longer.
--
-- Arguments of a request with a key: digest c10, fingerprint c4, bucket's slot B, time to live in seconds I4
-- Twin: src/store/redis/idempotency.rs
--
-- Defines: begin_idempotency, read_key, replay, keep_answer, write_answers

local KEPT, KEPT_HOLD = '>c4I4c16', '>c4I4c16I6I4I3'
local KEPT_BYTES = 24

local bucket_keys              -- the keys of this call, by slot
local digest, fingerprint, bucket, keep_seconds   -- of the current request
local bucket_expiry            -- by slot, in Unix seconds; 0 for a new bucket
local fresh                    -- answers of this call by digest: their bytes
local added                    -- slot, digest and bytes of each answer to write

local function begin_idempotency(keys)
  bucket_keys, bucket_expiry, fresh, added = keys, {}, {}, {}
end

-- Reads the arguments and returns the position after them.
local function read_key(op, at)
  digest, fingerprint, bucket, keep_seconds, at = unpack('>c10c4BI4', op, at)
  return at
end

local function now_seconds()
  return math.floor(now_ms / 1000)
end

local function kept_answer()
  if fresh[digest] then return fresh[digest] end
  local found = redis.call('HMGET', bucket_keys[bucket], digest, '')
  bucket_expiry[bucket] = bucket_expiry[bucket] or (found[2] and unpack('>I4', found[2])) or 0
  local kept = found[1]
  if kept and unpack('>I4', kept, 5) > now_seconds() then return kept end
end

-- Returns true if this key was used before. Then answers as the first time, with the present numbers, or MISMATCH if
-- the request is a different one. `outcome` is the slot of an answer that version 0.1.0 has kept.
local function replay(slot, outcome)
  local kept = kept_answer()
  if not kept then return replay_first_format(slot, outcome, fingerprint) end
  if sub(kept, 1, 4) ~= fingerprint then
    answer(slot, false, MISMATCH)
  elseif #kept == KEPT_BYTES then
    answer_with(slot, false, OK, REPLAYED, sub(kept, 9, 24), 0, 0, 0)
  else
    local _, _, id, expiry_ms, hold_generation, hold_period = unpack(KEPT_HOLD, kept)
    answer_with(slot, false, OK, REPLAYED, id, 0, 0, expiry_ms, pack('>I4I3', hold_generation, hold_period))
  end
  return true
end

-- Keeps the answer to the current request, for a reservation with the expiry of its hold.
local function keep_answer(id, expiry_ms)
  local until_seconds = now_seconds() + keep_seconds
  local value
  if expiry_ms then
    value = pack(KEPT_HOLD, fingerprint, until_seconds, id, expiry_ms, generation, period)
  else
    value = pack(KEPT, fingerprint, until_seconds, id)
  end
  fresh[digest] = value
  local n = #added
  added[n + 1], added[n + 2], added[n + 3] = bucket, digest, value
end

local function drop_expired(key)
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do
    local field, value = found[i], found[i + 1]
    if field ~= '' and unpack('>I4', value, 5) <= now_seconds() then redis.call('HDEL', key, field) end
  end
end

local function write_answers()
  for i = 1, #added, 3 do
    local slot, field, value = added[i], added[i + 1], added[i + 2]
    local key = bucket_keys[slot]
    local until_seconds = unpack('>I4', value, 5)
    if until_seconds > bucket_expiry[slot] then
      if bucket_expiry[slot] > 0 then drop_expired(key) end
      local expiry_seconds = until_seconds + math.ceil((until_seconds - now_seconds()) / 4)
      bucket_expiry[slot] = expiry_seconds
      redis.call('HSET', key, field, value, '', pack('>I4', expiry_seconds))
      redis.call('PEXPIRE', key, (expiry_seconds - now_seconds()) * 1000)
    else
      redis.call('HSET', key, field, value)
    end
  end
end
