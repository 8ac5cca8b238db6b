-- Charges that the old credits system has not confirmed yet, while both are in use. A row comes with the charge's row of the log,
-- in the same transaction, and goes when the old system has taken it.

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

comment on column dual_writes.due_at is 'of a row that somebody is at: when another one may try';

create index idx_dual_writes_due on dual_writes (due_at);
create index idx_dual_writes_user on dual_writes (user_uuid);
