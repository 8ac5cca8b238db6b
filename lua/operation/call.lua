-- One call: read everything, decide everything, then write.
--
-- keys[1]       the fence
-- keys[2..n-2]  records, outcomes and the prefix of buckets of answers; operations refer to them by index ("slot")
-- keys[n-1]     the quotas and limits of the levels
-- keys[n]       the usage stream of the generation
-- args[3..]     the operations, in order: code B, slot of the record B, slot of the outcome B (0: none), arguments. An
--               operation on another meter than the chat has METERED added to its code, and the meter's code B before
--               its arguments.
--
-- Returns one string: ANSWERED, now_ms I6, number of expired holds I2, and the answers in the order of the operations;
-- or STALE or SKEW, and now_ms I6.
-- Two operations on one user see each other's effect, because a changed record replaces the value that was read.
-- XADD is the first write and the only one that can fail (out of memory, or no stream). Then nothing is written.

do   -- Redis allows 200 locals of a script

local ANSWERED, STALE, SKEW = 0, 1, 2
local METERED = 64
local SEED, CONSUME_OP, RESERVE, EXTEND, COMMIT_OP, RELEASE, PEEK, SET_LEVEL, BRING_GRANTS, TRANSFER_OP =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10

local operations = {
  [CONSUME_OP] = consume,
  [RESERVE] = reserve,
  [EXTEND] = extend,
  [COMMIT_OP] = commit,
  [RELEASE] = release,
  [PEEK] = peek,
  [SET_LEVEL] = set_level,
  [BRING_GRANTS] = bring_grants,
  [EXTENDED + CONSUME_OP] = with_blocks(consume),
  [EXTENDED + COMMIT_OP] = with_blocks(commit),
  [EXTENDED + TRANSFER_OP] = with_blocks(transfer),
}

local function write_records(keys)
  local writes, n = {}, 0
  for slot in pairs(dirty) do
    writes[n + 1], writes[n + 2] = keys[slot], values[slot]
    n = n + 2
  end
  if n > 0 then redis.call('MSET', spread(writes, 1, n)) end
  for i = 1, #outcomes, 2 do
    local slot = outcomes[i]
    redis.call('PSETEX', keys[slot], outcomes[i + 1], values[slot])
  end
end

-- Begins an operation whose code is at least METERED. Returns its code alone, and the position of its arguments.
local function begin_metered(op, code)
  if code % EXTENDED < METERED then return code, 4 end
  use_meter(byte(op, 4))
  return code - METERED, 5
end

local function call(keys, args)
  begin_call(args)
  if math.abs(now_ms - caller_ms) > SKEW_MAX_MS then return pack('>BI6', SKEW, now_ms) end

  local found = redis.call('MGET', spread(keys, 1, #keys - 1))
  if found[1] ~= args[1] then return pack('>BI6', STALE, now_ms) end

  begin_periods(args)
  begin_journal(keys[#keys])
  begin_levels(found[#keys - 1])
  begin_answers(found)
  begin_idempotency(keys)
  say('')   -- the head, filled in at the end
  for i = 3, #args do
    local op = args[i]
    local code, slot, outcome = byte(op, 1, 3)
    local at = 4
    if code >= METERED then code, at = begin_metered(op, code) end
    local known = values[slot]
    if code == SEED then
      seed(op, at, slot)
    elseif not known then
      say(char(MISSING))
    else
      read_record(known)
      if record_generation ~= generation then
        say(char(MISSING))
      else
        if period ~= current_month or day ~= current_day or holds ~= '' or windows then bring_up_to_date() end
        -- The quota of a meter is always that of the level, so no change of the levels has to be sent to its records.
        if at > 4 then quota = quota_for(level, quota) end
        if limits_of or windows then use_limits() end
        operations[code](op, at, slot, outcome)
      end
    end
    if at > 4 then use_meter(CHAT) end
  end

  if levels_missing or not write_journal() then return pack('>BI6', STALE, now_ms) end
  write_records(keys)
  write_answers()
  answers[1] = pack('>BI6I2', ANSWERED, now_ms, expired)
  return join(answers)
end

redis.register_function(NAME, call)
-- The same beyond `maxmemory`. The gate calls it only for settlements, whose charges were admitted before, and for
-- reads of records that exist.
redis.register_function{ function_name = NAME .. '_settle', callback = call, flags = { 'allow-oom' } }

end
