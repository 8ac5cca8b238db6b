-- The membership levels. Records in Redis hold the level's code, so a code is assigned once and never changes.
-- Quotas come from the configuration; a roll looks them up here.

create table membership_levels (
    code smallint primary key constraint membership_levels_code check (code between 1 and 255),
    name text collate "C" not null constraint membership_levels_name unique,
    monthly_quota integer not null constraint membership_levels_quota check (monthly_quota >= 0),
    updated_at timestamptz not null
);
