-- Answers, and the outcomes that let a request be repeated.
--
-- Answer: status B, flags B, id c16, charged I4, overage I4, expiry I6, held I4, hold count B, the record's base,
--   and for peek its holds. A MISSING answer, and a SEED's, is the status alone. Twin: src/store/redis/reply.rs
--
-- An outcome is kept under a key of its own with a time to live, not in the record: a record is read at every
-- message, an outcome only when its request comes again (decision 0006).
--
-- Defines: NO_ID, values, dirty, outcomes, answer, keep_outcome, replay

local NO_ID = string.rep('\0', 16)

local values            -- what MGET found, by slot; a changed record replaces what was found
local dirty = {}        -- slots of changed records
local outcomes = {}     -- { slot, value, time to live in ms }

-- An operation that changed the record says so by `changed`; one that did not leaves nothing behind.
local function answer(slot, changed, status, flags, id, charged, overage, expiry_ms, with_holds)
  if changed then
    version = math.max(version + 1, now_ms)
  end
  local base = base_of_record()
  if changed then
    values[slot] = write_record(base)
    dirty[slot] = true
  end
  local head = pack('>BBc16I4I4I6I4B', status, flags, id or NO_ID, charged or 0, overage or 0, expiry_ms or 0, held,
    with_holds and #holds / HOLD_BYTES or 0)
  if with_holds then return head .. base .. holds end
  return head .. base
end

local function keep_outcome(slot, value, ttl_ms)
  values[slot] = value
  outcomes[#outcomes + 1] = { slot, value, ttl_ms }
end

-- The first answer again, when this Idempotency-Key was used for this very request before.
local function replay(slot, outcome, fingerprint)
  local kept = values[outcome]
  if not kept then return nil end
  if sub(kept, 1, 16) ~= fingerprint then return answer(slot, false, MISMATCH, 0) end
  return sub(kept, 17, 17) .. string.char(REPLAYED) .. sub(kept, 19)
end
