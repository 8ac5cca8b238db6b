-- Charges that the old credits system has not confirmed yet, while both systems are in use. The transaction that writes
-- the charge's log row inserts the row. It is deleted when the old system has accepted the charge.

create table dual_writes (
    event uuid primary key,
    user_uuid text collate "C" not null,
    session_id text not null,
    period integer not null,
    ap integer not null,
    tokens integer not null,
    charged_at timestamptz not null,
    attempts integer not null default 0,
    due_at timestamptz not null,
    last_error text
);

comment on column dual_writes.due_at is 'for a claimed row: when another gate may claim it';

create index idx_dual_writes_due on dual_writes (due_at);
create index idx_dual_writes_user on dual_writes (user_uuid);
