-- The journal: the usage events of this call. They become one stream entry, written before any record.
--
-- Event: kind B, level B, period I3, AP I4, overage I4, then the tail packed by the gate:
--   id c16, tokens I4; user, session: each length B and bytes, or 0 B and the c16 of a UUID; model: length B and bytes
-- An extended event has EXTENDED added to its kind, and after the model blocks, each a tag B and its fields, then the
--   tag 0. The gate's blocks are part of the tail that it packs; those of the script follow.
-- Entry: format B, now_ms I6, id of its last event c16, then the events. The format is 3 if an event is extended, so
--   gates of the previous version still read the entries of users without new parts (decision 0022).
-- A format is a number below 32. A gate leaves entries of a format that it does not know to a newer gate.
-- Twins: src/store/redis/usage_stream.rs, event_blocks.rs
--
-- Defines: CONSUME, COMMIT, LATE_COMMIT, TRANSFER, EXTENDED, journal, with_blocks, write_journal, journal_is_full,
--          begin_journal

local CONSUME, COMMIT, LATE_COMMIT, TRANSFER = 1, 2, 3, 5
local EXTENDED = 128            -- added to the kind of an event, and to the code of an operation whose tail has blocks
local begin_journal, journal, with_blocks, write_journal, journal_is_full
do   -- Redis allows 200 locals of a script

local END_OF_BLOCKS = '\0'
local ENTRY_FORMAT, EXTENDED_ENTRY_FORMAT = 2, 3
local ENTRY_BYTES_MAX = 65536   -- larger than any entry: 120 events of at most 400 bytes
local ENTRY_BYTES = 4096        -- assumed where the user of the gate may not ask for a key's memory

local stream            -- key of the usage stream
local stream_is_full    -- nil until this call has checked
local events, count     -- the entry's head, then head and tail of each event; number of elements
local entry_format
local last_tail
local tail_has_blocks = false   -- whether the tail of the running operation ends in blocks of the gate
local head, head_kind, head_level, head_period, head_ap, head_overage   -- of the last event

function begin_journal(key)
  stream, stream_is_full = key, nil
  events, count, last_tail, head_kind = { '' }, 1, nil, nil
  entry_format, tail_has_blocks = ENTRY_FORMAT, false
end

-- `blocks`: those of the script, joined, or nil if it has none for this event.
-- Most events of a call have the same head. Comparing five numbers costs less than packing a head.
function journal(kind, event_period, ap, overage, tail, blocks)
  if blocks or tail_has_blocks then
    kind, tail, entry_format = kind + EXTENDED, tail .. (blocks or '') .. END_OF_BLOCKS, EXTENDED_ENTRY_FORMAT
  end
  if kind ~= head_kind or level ~= head_level or event_period ~= head_period or ap ~= head_ap
    or overage ~= head_overage then
    head_kind, head_level, head_period, head_ap, head_overage = kind, level, event_period, ap, overage
    head = pack('>BBI3I4I4', kind, level, event_period, ap, overage)
  end
  events[count + 1], events[count + 2] = head, tail
  count = count + 2
  last_tail = tail
end

-- Returns the operation for a tail that ends in blocks of the gate.
function with_blocks(operation)
  return function(op, at, slot, outcome)
    tail_has_blocks = true
    operation(op, at, slot, outcome)
    tail_has_blocks = false
  end
end

-- Returns false if the stream does not exist: then the partition is not open, whatever the fence contains.
function write_journal()
  if count == 1 then return true end
  events[1] = pack('>BI6c16', entry_format, now_ms, last_tail)
  return redis.call('XADD', stream, 'NOMKSTREAM', '*', 'e', join(events))
end

-- Returns the memory of the stream: a bound if it is far from full, otherwise an estimate from a few entries.
local function stream_bytes()
  local entries = redis.call('XLEN', stream)
  local bytes_max = entries * ENTRY_BYTES_MAX
  if bytes_max < stream_bytes_max then return bytes_max end
  local bytes = redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', '8')
  if type(bytes) ~= 'number' then return entries * ENTRY_BYTES end
  -- Redis samples the oldest entries. The newest may be larger.
  local newest, payload = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 8), 0
  for i = 1, #newest do payload = payload + #newest[i][2][2] end
  return math.max(bytes, entries * payload / #newest)
end

-- True if Postgres has been unavailable for so long that Redis could run out of memory. New work is then refused, but
-- holds are still settled.
function journal_is_full()
  if stream_is_full == nil then stream_is_full = stream_bytes() >= stream_bytes_max end
  return stream_is_full
end

end
