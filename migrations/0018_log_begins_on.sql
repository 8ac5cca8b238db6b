-- The date from which the usage log is kept: `quota-gate retention` may drop old partitions. The totals, the closed
-- months and usage_days are not dropped and include earlier usage.

alter table gate_settings add column log_begins_on date;

-- Compares only the days that the log has completely: those after the day on which it begins, which may be a different
-- day in the installation's time zone.
create or replace function usage_drift()
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
      and day > coalesce((select log_begins_on from gate_settings), '-infinity')
$$;
