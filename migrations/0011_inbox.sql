-- What Postgres accepted while Redis was unavailable: settlements of holds, and admitted messages. When Redis is back,
-- the inbox worker of any gate applies each item once and stores the result in `outcome`.
-- The id is that of the hold or of the message's usage event, so a repeated request finds the first one.

create table inbox (
    id uuid primary key,
    user_uuid text collate "C" not null,
    kind text not null constraint inbox_kind check (kind in ('consume', 'commit', 'release')),
    reservation_id text not null,
    ap integer not null constraint inbox_ap check (ap >= 0),
    tokens integer not null,
    idempotency_key text,
    accepted_at timestamptz not null,
    claim uuid,
    claimed_until timestamptz,
    outcome text,
    settled_at timestamptz
);

comment on column inbox.claim is 'claim of the inbox worker that processes the item, valid until claimed_until';

create index idx_inbox_waiting on inbox (accepted_at, id) where settled_at is null;
create index idx_inbox_waiting_user on inbox (user_uuid) where settled_at is null;
