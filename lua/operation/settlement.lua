-- Settlement: what commit, release and extend have in common.
--
-- A hold settles at most once. Its settlement is kept by hold id for as long as the request may be repeated:
--   state B (COMMITTED, COMMITTED_LATE or RELEASED), AP committed I4, AP charged I4
--
-- A hold of this generation that is neither live nor settled has expired. A hold of another generation may have been
-- settled there, which Redis cannot check: the answer is UNKNOWN_HOLD, and the gate checks Postgres and repeats the
-- operation with `adopt`.
--
-- Defines: the states; settlement_of, keep_settlement, may_be_settled_elsewhere, may_be_forgotten

local COMMITTED, COMMITTED_LATE, RELEASED = 1, 2, 3

local function settlement_of(outcome)
  local kept = values[outcome]
  if kept then return unpack('>BI4I4', kept) end
end

-- Kept for as long as a commit is accepted, plus one more settle window for repeats of the last commit.
local function keep_settlement(outcome, state, ap, charged, expiry_ms)
  local ttl_ms = (expiry_ms > now_ms and expiry_ms - now_ms or 0) + 2 * SETTLE_WINDOW_MS
  keep_outcome(outcome, pack('>BI4I4', state, ap, charged), ttl_ms)
end

local function may_be_settled_elsewhere(hold_generation, adopt)
  return hold_generation ~= generation and adopt == 0
end

-- A settlement that was made before Postgres accepted the commit is kept for at least two settle windows.
local function may_be_forgotten(accepted_ms, adopt)
  return accepted_ms > 0 and adopt == 0 and now_ms > accepted_ms + SETTLE_WINDOW_MS
end
