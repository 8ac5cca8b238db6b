-- Idempotency: what was answered first to a request with an Idempotency-Key, so that a repeat is recognized.
--
-- Answers are kept in buckets: by time, in slices half as long as keys are remembered, and in each slice by the hash
-- of user and key. A bucket is a hash. Redis packs a small hash into one string, so an answer takes some 50 bytes
-- instead of the 270 of a key of its own (decision 0021). A full bucket gets a mark, and further answers go to one of
-- its sixteen parts. Redis expires the buckets of a slice as a whole.
--   key       the prefix from the call, slice I4, depth B, the first 12 + 4 * depth bits of the hash I4
--   field     digest of user and key c10
--   value     fingerprint c4, kept until I4 (Unix seconds), id c16;
--             for a reservation also: expiry I6, generation I4, period I3; and for a user with windows or grants
--             AP that grants are to pay I4, when the hold was made I6
--   field ''  the mark of a full bucket
--
-- Arguments of a request with a key: digest c10, hash I4, fingerprint c4, slot of the prefix B, seconds to keep I4
-- Twin: src/store/redis/idempotency.rs
--
-- Defines: begin_idempotency, read_key, replay, keep_answer, remember, write_answers

local begin_idempotency, read_key, replay, keep_answer, remember, write_answers
do   -- Redis allows 200 locals of a script

local KEPT, KEPT_HOLD = '>c4I4c16', '>c4I4c16I6I4I3'
local KEPT_BYTES, KEPT_HOLD_BYTES = 24, 37
local BUCKET_FULL = 448   -- Redis packs hashes of up to 512 fields, by default
local DEPTH_MAX = 5

local call_keys                                            -- the keys of this call, by slot
local digest, spread_hash, fingerprint, prefix, keep_seconds   -- of the current request
local target, target_expiry                                -- bucket for the answer, and when it expires
local fresh                                                -- answers of this call, by digest
local added                                                -- key, expiry, digest and value of each answer to write

function begin_idempotency(keys)
  call_keys, fresh, added = keys, {}, {}
end

-- Reads the arguments and returns the position after them.
function read_key(op, at)
  local slot
  digest, spread_hash, fingerprint, slot, keep_seconds, at = unpack('>c10I4c4BI4', op, at)
  prefix = call_keys[slot]
  return at
end

local function now_seconds()
  return math.floor(now_ms / 1000)
end

-- Returns the answer in a slice, or nil and the bucket that would have it.
local function find_in(slice)
  local depth = 0
  while true do
    local number = math.floor(spread_hash / 2 ^ (20 - 4 * depth))
    local key = prefix .. pack('>I4BI4', slice, depth, number)
    local found = redis.call('HMGET', key, digest, '')
    if found[1] or not found[2] or depth == DEPTH_MAX then return found[1], key end
    depth = depth + 1
  end
end

-- Returns the answer, if it is still kept. Otherwise sets the bucket for a new one.
local function kept_answer()
  if fresh[digest] then return fresh[digest] end
  local slice_seconds = math.ceil(keep_seconds / 2)
  local slice = math.floor(now_seconds() / slice_seconds)
  target_expiry = (slice + 1) * slice_seconds + keep_seconds
  -- The next slice too: the clock may have stepped back.
  for earlier = -1, 2 do
    local kept, key = find_in(slice - earlier)
    if kept and unpack('>I4', kept, 5) > now_seconds() then return kept end
    if earlier == 0 then target = key end
  end
end

-- Returns true if this key was used before. Then answers as the first time, with the present numbers, or MISMATCH if
-- the request is a different one. `outcome` is the slot of an answer that version 0.1.0 has kept.
function replay(slot, outcome)
  local kept = kept_answer()
  if not kept then return replay_first_format(slot, outcome, fingerprint) end
  if sub(kept, 1, 4) ~= fingerprint then
    answer(slot, false, MISMATCH)
  elseif #kept == KEPT_BYTES then
    answer_with(slot, false, OK, REPLAYED, sub(kept, 9, 24), 0, 0, 0)
  else
    local _, _, id, expiry_ms, hold_generation, hold_period = unpack(KEPT_HOLD, kept)
    local granted, made_ms
    if #kept > KEPT_HOLD_BYTES then granted, made_ms = unpack('>I4I6', kept, KEPT_HOLD_BYTES + 1) end
    local pinned = pack('>I4I3', hold_generation, hold_period)
    answer_with(slot, false, OK, REPLAYED, id, 0, 0, expiry_ms, pinned, granted, made_ms)
  end
  return true
end

-- Keeps the answer to the current request, for a reservation with the expiry of its hold. `kept_answer` precedes it.
function keep_answer(id, expiry_ms, granted, made_ms)
  local until_seconds = now_seconds() + keep_seconds
  local value
  if expiry_ms then
    value = pack(KEPT_HOLD, fingerprint, until_seconds, id, expiry_ms, generation, period)
    if granted then value = value .. pack('>I4I6', granted, made_ms) end
  else
    value = pack(KEPT, fingerprint, until_seconds, id)
  end
  fresh[digest] = value
  local n = #added
  added[n + 1], added[n + 2], added[n + 3], added[n + 4] = target, target_expiry, digest, value
end

-- Keeps the answer unless there is one.
function remember(id)
  if not kept_answer() then keep_answer(id) end
end

function write_answers()
  for i = 1, #added, 4 do
    local key, expiry_seconds, field, value = added[i], added[i + 1], added[i + 2], added[i + 3]
    redis.call('HSET', key, field, value)
    local fields = redis.call('HLEN', key)
    if fields == 1 then redis.call('PEXPIRE', key, (expiry_seconds - now_seconds()) * 1000) end
    if fields == BUCKET_FULL then redis.call('HSET', key, '', '') end
  end
end

end
