-- transfer: give AP of the user's grants to another user.
--
-- Only what grants can pay and no hold needs. Grants pay in the order in which they pay messages. Nothing of it counts
-- as used. The receiver's grants are made from the journal, with the expiry and priority of the grant that paid each
-- part, so the event has them.
--
-- Arguments: AP I4; what idempotency.lua reads; then the event's tail, with the receiver's block
-- Answer:    OK | DENIED | BLOCKED | SHED | MISMATCH

local transfer
do   -- Redis allows 200 locals of a script

-- The blocks of the event: what each grant has paid, and its terms.
local function part_blocks()
  local by_number, terms = {}, {}
  for i = 1, #grants do by_number[grants[i].number] = grants[i] end
  for i = 1, #parts do
    local grant = by_number[unpack('>I6', parts[i])]
    terms[i] = pack('>I6B', grant.expiry_ms < NEVER_MS and grant.expiry_ms or 0, grant.priority)
  end
  return '\4' .. pack('>I4B', 0, #parts) .. join(parts) .. '\7' .. char(#terms) .. join(terms)
end

function transfer(op, at, slot, outcome)
  local ap
  ap, at = unpack('>I4', op, at)
  at = read_key(op, at)
  if replay(slot, outcome) then return end

  if is_blocked() then return answer(slot, false, BLOCKED) end
  if journal_is_full() then return answer(slot, false, SHED) end
  if not windows or ap > grant_free() then return answer(slot, false, DENIED) end
  begin_parts()
  take_from_grants(ap)
  journal(TRANSFER, period, 0, 0, sub(op, at), part_blocks())
  answer(slot, true, OK)
  keep_answer(sub(op, at, at + 15))
end

end
