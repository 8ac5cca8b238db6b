-- One call: read everything, decide everything, then write.
--
-- KEYS[1]       the fence
-- KEYS[2..n-1]  records and outcomes; an operation names them by their place ("slot")
-- KEYS[n]       the usage stream of the generation
-- ARGV[3..]     the operations, in order: code B, slot of the record B, slot of the outcome B (0: none), its arguments
--
-- Returns one string: ANSWERED, now_ms I6, and the answers in the order of the operations; or STALE or SKEW, and
-- now_ms I6.
-- Two operations on one user see each other's effect, because a changed record replaces what was read.
-- XADD is the first write, and the only one that may fail (on memory, or for want of the stream): then nothing is
-- written.

local ANSWERED, STALE, SKEW = 0, 1, 2
local SEED, CONSUME_OP, RESERVE, EXTEND, COMMIT_OP, RELEASE, PEEK, SET_LEVEL = 1, 2, 3, 4, 5, 6, 7, 8

if math.abs(now_ms - caller_ms) > SKEW_MAX_MS then return pack('>BI6', SKEW, now_ms) end

values = redis.call('MGET', spread(KEYS, 1, #KEYS - 1))
if values[1] ~= ARGV[1] then return pack('>BI6', STALE, now_ms) end

local answers = { '', pack('>BI6', ANSWERED, now_ms) }
for i = 3, #ARGV do
  local op = ARGV[i]
  local code, slot, outcome, at = unpack('>BBB', op)
  if code == SEED then
    answers[i] = seed(op, at, slot)
  else
    local known = values[slot]
    if known then read_record(known) end
    if not known or record_generation ~= generation then
      answers[i] = string.char(MISSING)
    else
      bring_up_to_date()
      if code == CONSUME_OP then
        answers[i] = consume(op, at, slot, outcome)
      elseif code == RESERVE then
        answers[i] = reserve(op, at, slot, outcome)
      elseif code == COMMIT_OP then
        answers[i] = commit(op, at, slot, outcome)
      elseif code == RELEASE then
        answers[i] = release(op, at, slot, outcome)
      elseif code == EXTEND then
        answers[i] = extend(op, at, slot, outcome)
      elseif code == PEEK then
        answers[i] = peek(slot)
      elseif code == SET_LEVEL then
        answers[i] = set_level(op, at, slot)
      else
        return redis.error_reply('ERR unknown operation')
      end
    end
  end
end

if #events > 0 and not redis.call('XADD', KEYS[#KEYS], 'NOMKSTREAM', '*', 'e', entry_of_events()) then
  return pack('>BI6', STALE, now_ms)
end

local writes = {}
for slot in pairs(dirty) do
  writes[#writes + 1] = KEYS[slot]
  writes[#writes + 1] = values[slot]
end
if #writes > 0 then redis.call('MSET', spread(writes)) end
for _, outcome in ipairs(outcomes) do
  redis.call('SET', KEYS[outcome[1]], outcome[2], 'PX', outcome[3])
end

return table.concat(answers)
