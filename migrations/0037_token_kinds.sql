-- The kinds of tokens of a message, if they are known: input, the cached part of it, and output. In the log and the
-- inbox they are null for a message of which only the total is known; usage_days has their sums. None of the new
-- columns rewrites a table.

alter table chat_usage_logs
    add column input_tokens integer,
    add column cached_input_tokens integer,
    add column output_tokens integer,
    add column tokens_estimated boolean not null default false;

comment on column chat_usage_logs.input_tokens is 'including cached_input_tokens; tokens_used is input_tokens + output_tokens';
comment on column chat_usage_logs.tokens_estimated is 'the gate has estimated the tokens: no model has reported them';

alter table inbox
    add column input_tokens integer,
    add column cached_input_tokens integer,
    add column output_tokens integer,
    add column tokens_estimated boolean not null default false;

alter table usage_days
    add column input_tokens bigint not null default 0,
    add column cached_input_tokens bigint not null default 0,
    add column output_tokens bigint not null default 0;

-- Compares the kinds too. Programs of the previous version name the columns that they read.
drop function usage_drift();

create function usage_drift()
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
