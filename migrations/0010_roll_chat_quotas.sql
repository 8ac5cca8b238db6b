-- The period roll: closes the rows of these users whose period is before `to_period`, and begins `to_period`.
-- Only this function changes a row's period. The flusher, the resetter and a change of level call it.
-- Running it again changes nothing: a rolled row is not due.

create function roll_chat_quotas(users text[], to_period integer, to_reset_at timestamptz, at timestamptz)
returns bigint
language sql
as $$
    with due as (
        select user_uuid, membership_level, monthly_quota, monthly_used, monthly_overage, period
        from chat_quotas
        where user_uuid = any (users)
          and period < to_period
        order by user_uuid
        for update
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
    ),
    rolled as (
        update chat_quotas as quotas
        set period = to_period,
            quota_reset_at = to_reset_at,
            membership_level = levels.name,
            monthly_quota = levels.monthly_quota,
            pending_level = null,
            monthly_used = 0,
            monthly_overage = 0,
            updated_at = greatest(quotas.updated_at, at)
        from due, membership_levels as levels
        where quotas.user_uuid = due.user_uuid
          and levels.name = coalesce(quotas.pending_level, quotas.membership_level)
        returning 1
    )
    select count(*) from rolled
$$;
