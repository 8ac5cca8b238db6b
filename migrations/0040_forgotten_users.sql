-- Users whose ids `quota-gate forget` has replaced by pseudonyms. Only a digest of the id is kept, so that the id does
-- not come back: no row is created for it, for a message, a late commit, billing, an import or a repair.
-- `quota-gate forget --readmit` deletes the digest.

create table forgotten_users (
    digest bytea primary key,
    pseudonym text collate "C",
    forgotten_at timestamptz not null
);

comment on column forgotten_users.digest is 'SHA-256 of the user id';
comment on column forgotten_users.pseudonym is 'while the id is being replaced; null afterwards, so nothing links the two';

-- The gate's role cannot read the digests; it can only check an id.
create function is_forgotten(id text) returns boolean
language sql
stable
security definer
set search_path from current
as $$
    select exists (select from forgotten_users where digest = sha256(convert_to(id, 'UTF8')))
$$;

create function skip_forgotten_users() returns trigger
language plpgsql
as $$
begin
    return case when is_forgotten(new.user_uuid) then null else new end;
end
$$;

create trigger skip_forgotten_users
before insert on chat_quotas
for each row
execute function skip_forgotten_users();

-- Only kinds are added, so existing rows need no check.
alter table user_changes
    drop constraint user_changes_kind,
    add constraint user_changes_kind
        check (kind in ('level', 'hold_released', 'forgotten', 'quota', 'blocked', 'unblocked')) not valid;
