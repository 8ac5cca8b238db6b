-- Transfers: AP of a grant that goes from one user to another. The sender's charge and the receiver's grants are
-- written by one flush. The receiver's grants have no number until the grant sync gives them one, under the lock of the
-- receiver's row (decision 0024).

alter table grants add column received_from text collate "C";
comment on column grants.received_from is 'the user who transferred the AP; null for grants that were not transferred';

-- Whether `quota-gate forget` has replaced this id everywhere. While it is still at work, is_forgotten is true and this
-- is false: then it may still be refused, and the id returns.
create function is_forgotten_everywhere(id text) returns boolean
language sql
stable
security definer
set search_path from current
as $$
    select exists (
        select from forgotten_users where digest = sha256(convert_to(id, 'UTF8')) and pseudonym is null
    )
$$;
