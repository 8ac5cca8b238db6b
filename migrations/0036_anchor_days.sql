-- Periods that begin on another day than the first of a month. The anchor day is the day of the month on which a user's
-- periods begin, or the last day of a shorter month. The number of a period is YYYYMM if it begins on the first, else
-- YYYYMMDD, so numbers of the two kinds are compared by their first day only (decision 0022).

alter table chat_quotas
    add column anchor_day smallint not null default 1
        constraint chat_quotas_anchor_day check (anchor_day between 1 and 31);
comment on column chat_quotas.anchor_day is 'day of the month on which the user''s periods begin';
comment on column chat_quotas.period is 'YYYYMM if it begins on the first of a month, else YYYYMMDD';

create function period_begins(period integer)
returns date
language sql
immutable
parallel safe
as $$
    select case
        when period < 1000000 then make_date(period / 100, period % 100, 1)
        else make_date(period / 10000, period / 100 % 100, period % 100)
    end
$$;
comment on function period_begins is 'first day of a period';

-- Like the function of 0027, but each user has a period and its end of its own. Changes no row that is in that period
-- or a later one.
create function roll_chat_quotas(users text[], to_periods integer[], to_reset_ats timestamptz[], at timestamptz)
returns bigint
language plpgsql
as $$
declare
    locked text[];
    rolled bigint;
begin
    select array_agg(due.user_uuid)
    into locked
    from (
        select quotas.user_uuid
        from chat_quotas as quotas
        join unnest(users, to_periods) as target (user_uuid, period) on target.user_uuid = quotas.user_uuid
        where period_begins(quotas.period) < period_begins(target.period)
        order by quotas.user_uuid
        for update of quotas
    ) as due;
    if locked is null then
        return 0;
    end if;

    with due as (
        select quotas.user_uuid, quotas.membership_level, quotas.monthly_quota, quotas.monthly_used, quotas.monthly_overage,
               quotas.period, target.period as next_period, target.reset_at as next_reset_at,
               levels.name as next_level, levels.monthly_quota as next_quota
        from chat_quotas as quotas
        join unnest(users, to_periods, to_reset_ats) as target (user_uuid, period, reset_at)
          on target.user_uuid = quotas.user_uuid
        join membership_levels as levels on levels.name = coalesce(quotas.pending_level, quotas.membership_level)
        where quotas.user_uuid = any (locked)
          and period_begins(quotas.period) < period_begins(target.period)
    ),
    closed as (
        insert into chat_quota_months as months (user_uuid, period, membership_level, monthly_quota, used, overage)
        select user_uuid, period, membership_level, monthly_quota, monthly_used, monthly_overage
        from due
        order by user_uuid
        on conflict (user_uuid, period) do update
        set membership_level = excluded.membership_level,
            monthly_quota = excluded.monthly_quota,
            used = months.used + excluded.used,
            overage = months.overage + excluded.overage
    )
    update chat_quotas as quotas
    set period = due.next_period,
        quota_reset_at = due.next_reset_at,
        membership_level = due.next_level,
        monthly_quota = due.next_quota,
        pending_level = null,
        monthly_used = 0,
        monthly_overage = 0,
        updated_at = greatest(quotas.updated_at, at)
    from due
    where quotas.user_uuid = due.user_uuid;

    get diagnostics rolled = row_count;
    return rolled;
end
$$;

-- The function of 0021, which compared the numbers of periods.
create or replace function notify_of_quota() returns trigger
language plpgsql
as $$
begin
    if not coalesce((select notifies from gate_settings), false) then
        return null;
    end if;
    insert into notifications
        (kind, user_uuid, period, membership_level, previous_level, pending_level, monthly_quota, monthly_used, created_at, due_at)
    select kind, new.user_uuid, new.period, new.membership_level,
           case when kind = 'level.changed' then old.membership_level end,
           new.pending_level, new.monthly_quota, new.monthly_used, new.updated_at, new.updated_at
    from (
        values
            ('level.changed', (old.membership_level, old.pending_level) is distinct from (new.membership_level, new.pending_level)),
            ('quota.reset', period_begins(old.period) < period_begins(new.period) and old.monthly_used * 100 > old.monthly_quota::bigint * 80),
            ('quota.warning', new.monthly_used * 100 > new.monthly_quota::bigint * 80
                and (period_begins(old.period) < period_begins(new.period) or old.monthly_used * 100 <= old.monthly_quota::bigint * 80)),
            ('quota.critical', new.monthly_used * 100 > new.monthly_quota::bigint * 95
                and (period_begins(old.period) < period_begins(new.period) or old.monthly_used * 100 <= old.monthly_quota::bigint * 95)),
            ('quota.exhausted', new.monthly_used >= new.monthly_quota
                and (period_begins(old.period) < period_begins(new.period) or old.monthly_used < old.monthly_quota))
    ) as crossed (kind, is_crossed)
    where is_crossed
    on conflict do nothing;
    return null;
end
$$;

alter table user_changes add column anchor_before smallint, add column anchor_after smallint;
comment on column user_changes.anchor_after is 'anchor day after a change of it';
