-- Usage by day, level and model. The flush adds to it in its own transaction, so it is always the sum of the log's
-- messages (not of imports and adjustments, which no user sent). Days are in the installation's time zone.
-- A flush locks only the rows of its own partition, so flushes of two partitions never wait for each other here.

create table usage_days (
    day date not null,
    membership_level text collate "C" not null,
    model text collate "C" not null,
    partition smallint not null,
    messages bigint not null,
    ap bigint not null,
    overage bigint not null,
    tokens bigint not null,
    primary key (day, membership_level, model, partition)
);

-- The sums of the log minus those of the table.
create function usage_drift()
returns table (day date, membership_level text, model text, messages bigint, ap bigint, overage bigint, tokens bigint)
language sql
stable
as $$
    with logged as (
        select (logs.created_at at time zone settings.time_zone)::date as day,
               logs.membership_level,
               logs.model,
               count(*) as messages,
               sum(logs.ap_used) as ap,
               sum(logs.overage) as overage,
               sum(logs.tokens_used) as tokens
        from chat_usage_logs as logs
        cross join gate_settings as settings
        where logs.kind in ('consume', 'commit', 'late_commit')
        group by 1, 2, 3
    ),
    rolled as (
        select usage.day,
               usage.membership_level,
               usage.model,
               sum(usage.messages) as messages,
               sum(usage.ap) as ap,
               sum(usage.overage) as overage,
               sum(usage.tokens) as tokens
        from usage_days as usage
        group by 1, 2, 3
    ),
    difference as (
        select day,
               membership_level,
               model,
               coalesce(logged.messages, 0) - coalesce(rolled.messages, 0) as messages,
               coalesce(logged.ap, 0) - coalesce(rolled.ap, 0) as ap,
               coalesce(logged.overage, 0) - coalesce(rolled.overage, 0) as overage,
               coalesce(logged.tokens, 0) - coalesce(rolled.tokens, 0) as tokens
        from logged
        full join rolled using (day, membership_level, model)
    )
    select day, membership_level, model, messages::bigint, ap::bigint, overage::bigint, tokens::bigint
    from difference
    where (messages, ap, overage, tokens) <> (0, 0, 0, 0)
$$;

-- Usage that was logged before this table existed.
insert into usage_days (day, membership_level, model, partition, messages, ap, overage, tokens)
select day, membership_level, model, 0, messages, ap, overage, tokens
from usage_drift();
