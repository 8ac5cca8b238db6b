-- The resetter's runs, for GET /api/chat/quota/reset.

create table reset_runs (
    id bigint generated always as identity primary key,
    trigger text not null,
    started_at timestamptz not null,
    finished_at timestamptz,
    rows bigint not null default 0,
    failed bigint not null default 0,
    error text
);

create index idx_reset_runs_started_at on reset_runs (started_at desc);
