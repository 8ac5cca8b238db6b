-- The journal: the usage events of this call. They become one stream entry, written before any record.
--
-- Event: kind B, level B, period I3, AP I4, overage I4, then the tail that the gate has packed:
--   id c16, tokens I4, user (length B, bytes), session (length B, bytes)
-- Entry: format B, now_ms I6, id of its last event c16, then the events.
-- Twin: src/store/redis/usage_stream.rs
--
-- Defines: CONSUME, COMMIT, LATE_COMMIT, events, journal, entry_of_events, journal_is_full

local CONSUME, COMMIT, LATE_COMMIT = 1, 2, 3
local ENTRY_FORMAT = 1

local events, last_event = {}, nil

local function journal(kind, event_period, ap, overage, tail)
  events[#events + 1] = pack('>BBI3I4I4', kind, level, event_period, ap, overage) .. tail
  last_event = sub(tail, 1, 16)
end

local function entry_of_events()
  return pack('>BI6c16', ENTRY_FORMAT, now_ms, last_event) .. table.concat(events)
end

-- Postgres has been away for so long that Redis could run out of memory: nothing new is begun, and what was begun
-- is still settled.
local function journal_is_full()
  return redis.call('XLEN', KEYS[#KEYS]) >= stream_entries_max
end
