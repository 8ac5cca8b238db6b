-- bring-grants: take over the list of a user's grants from Postgres.
--
-- Only if the list is newer than the one that the record knows. Of a grant that the record knows it keeps what is left
-- in Redis, because charges are here before they are in Postgres. A grant that is not newer than the record's list, and
-- that the record does not have, is used up. One that the list does not have any more, because it was voided, ends now;
-- what older holds need of it stays theirs.
--
-- Arguments: version and grants, as in the tails of a record
-- Answer:    OK

local function bring_grants(op, at, slot)
  local list_version, list = read_grants(op, at)
  if list_version <= (windows and grants_version or 0) then return answer(slot, false, OK) end

  if not windows then extend_record() end
  local listed = {}
  for i = 1, #list do
    listed[list[i].number] = true
    if list[i].number > grants_version then grants[#grants + 1] = list[i] end
  end
  for i = 1, #grants do
    local grant = grants[i]
    if not listed[grant.number] and grant.expiry_ms > record_ms then grant.expiry_ms = record_ms end
  end
  grants_version = list_version
  answer(slot, true, OK)
end
