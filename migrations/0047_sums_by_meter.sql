-- Sums of the log by meter. What the chat's totals, windows and analytics are compared with is the chat's part of the
-- log. Gates of the previous version call the functions of the same names.

-- The function of 0039, of a meter. Its windows are those of meter_levels.
create function newest_meter_windows(of_user text, of_meter smallint, updated_at timestamptz) returns bigint[]
language sql
stable
as $$
    select array_agg(field.value order by newest.minutes, newest.unit, field.place)
    from (
        select distinct on (counts.minutes, counts.unit)
               counts.minutes, counts.unit, counts.start_ms, sum(counts.counted)::bigint as counted
        from chat_usage_logs as logs
        cross join lateral window_counts(logs.windows) as counts
        where logs.user_uuid = of_user
          and logs.meter = of_meter
          and logs.created_at >= updated_at
              - make_interval(mins => 2 + (select max(longest_window_minutes) from meter_levels where meter = of_meter))
          and logs.windows is not null
        group by counts.minutes, counts.unit, counts.start_ms
        order by counts.minutes, counts.unit, counts.start_ms desc
    ) as newest
    cross join lateral unnest(array[newest.minutes, newest.unit, newest.start_ms, newest.counted])
        with ordinality as field (value, place)
$$;

create or replace function newest_windows(of_user text, updated_at timestamptz) returns bigint[]
language sql
stable
as $$
    select array_agg(field.value order by newest.minutes, newest.unit, field.place)
    from (
        select distinct on (counts.minutes, counts.unit)
               counts.minutes, counts.unit, counts.start_ms, sum(counts.counted)::bigint as counted
        from chat_usage_logs as logs
        cross join lateral window_counts(logs.windows) as counts
        where logs.user_uuid = of_user
          and logs.meter = 0
          and logs.created_at >= updated_at
              - make_interval(mins => 2 + (select max(longest_window_minutes) from membership_levels))
          and logs.windows is not null
        group by counts.minutes, counts.unit, counts.start_ms
        order by counts.minutes, counts.unit, counts.start_ms desc
    ) as newest
    cross join lateral unnest(array[newest.minutes, newest.unit, newest.start_ms, newest.counted])
        with ordinality as field (value, place)
$$;

-- The function of 0044, of a meter.
create function left_of_meter_grants(of_user text, of_meter smallint) returns bigint[]
language sql
stable
as $$
    select array_agg(field.value order by grants.number, field.place)
    from grants
    cross join lateral unnest(array[
        grants.number,
        grants.granted - grants.charged - grants.transferred,
        coalesce((extract(epoch from grants.expires_at) * 1000)::bigint, 0),
        grants.priority::bigint
    ]) with ordinality as field (value, place)
    where grants.user_uuid = of_user
      and grants.meter = of_meter
      and grants.number is not null
      and grants.granted > grants.charged + grants.transferred
      and grants.voided_at is null
$$;

-- The function of 0037, of the chat: usage_days has no other meter.
create or replace function usage_drift()
returns table (
    day date, membership_level text, model text, messages bigint, ap bigint, overage bigint, tokens bigint,
    input_tokens bigint, cached_input_tokens bigint, output_tokens bigint
)
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
               sum(logs.tokens_used) as tokens,
               sum(coalesce(logs.input_tokens, 0)) as input_tokens,
               sum(coalesce(logs.cached_input_tokens, 0)) as cached_input_tokens,
               sum(coalesce(logs.output_tokens, 0)) as output_tokens
        from chat_usage_logs as logs
        cross join gate_settings as settings
        where logs.kind in ('consume', 'commit', 'late_commit')
          and logs.meter = 0
        group by 1, 2, 3
    ),
    rolled as (
        select usage.day,
               usage.membership_level,
               usage.model,
               sum(usage.messages) as messages,
               sum(usage.ap) as ap,
               sum(usage.overage) as overage,
               sum(usage.tokens) as tokens,
               sum(usage.input_tokens) as input_tokens,
               sum(usage.cached_input_tokens) as cached_input_tokens,
               sum(usage.output_tokens) as output_tokens
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
               coalesce(logged.tokens, 0) - coalesce(rolled.tokens, 0) as tokens,
               coalesce(logged.input_tokens, 0) - coalesce(rolled.input_tokens, 0) as input_tokens,
               coalesce(logged.cached_input_tokens, 0) - coalesce(rolled.cached_input_tokens, 0) as cached_input_tokens,
               coalesce(logged.output_tokens, 0) - coalesce(rolled.output_tokens, 0) as output_tokens
        from logged
        full join rolled using (day, membership_level, model)
    )
    select day, membership_level, model, messages::bigint, ap::bigint, overage::bigint, tokens::bigint,
           input_tokens::bigint, cached_input_tokens::bigint, output_tokens::bigint
    from difference
    where (messages, ap, overage, tokens, input_tokens, cached_input_tokens, output_tokens) <> (0, 0, 0, 0, 0, 0, 0)
      and day > coalesce((select log_begins_on from gate_settings), '-infinity')
$$;
