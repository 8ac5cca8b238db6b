-- Meters: what is counted beside messages of the chat, such as images. A user has one level, one period and one block,
-- in the row of chat_quotas; a meter adds quotas of the levels, and what was used. Meter 0 is the chat: its quotas and
-- totals stay in membership_levels and chat_quotas (decision 0023). None of the new columns rewrites a table.

create table meters (
    code smallint primary key constraint meters_code check (code between 1 and 255),
    name text collate "C" not null constraint meters_name unique,
    created_at timestamptz not null
);
comment on column meters.code is 'in keys of Redis and usage events: assigned once, never changed, never used again';

-- Changed under the versions of level_changes, together with the levels.
create table meter_levels (
    meter smallint not null references meters,
    membership_level text collate "C" not null references membership_levels (name),
    quota integer not null constraint meter_levels_quota check (quota >= 0),
    windows text not null default '',
    longest_window_minutes integer not null default 0,
    concurrency smallint constraint meter_levels_concurrency check (concurrency between 1 and 64),
    updated_at timestamptz not null,
    primary key (meter, membership_level)
);

-- What was used in each period, the current one too: the flush adds to it, so nothing rolls. Which period is current is
-- in chat_quotas.
create table meter_usage (
    user_uuid text collate "C" not null,
    meter smallint not null,
    period integer not null,
    used bigint not null default 0,
    total bigint not null default 0,
    overage bigint not null default 0,
    updated_at timestamptz not null,
    primary key (user_uuid, meter, period)
) with (fillfactor = 80);
comment on column meter_usage.used is 'AP that the plan paid';
comment on column meter_usage.total is 'AP that the plan and grants paid';

alter table chat_usage_logs add column meter smallint not null default 0;
alter table inbox add column meter smallint not null default 0;
alter table dead_letters add column meter smallint not null default 0;
