-- Complete copies of usage events that Postgres refused, so that nothing is dropped. `event` is null for an unreadable
-- stream entry.

create table dead_letters (
    id bigint generated always as identity primary key,
    partition smallint not null,
    generation integer not null,
    entry_id text not null,
    event uuid,
    user_uuid text,
    ap_used integer,
    payload bytea not null,
    reason text not null,
    created_at timestamptz not null
);

create unique index idx_dead_letters_once
    on dead_letters (partition, entry_id, coalesce(event, '00000000-0000-0000-0000-000000000000'), md5(payload));
