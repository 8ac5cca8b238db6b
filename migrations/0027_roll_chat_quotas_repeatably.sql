-- The period roll of 0010, made repeatable. While the old function waited for a locked row, the row could change. Then
-- the closed month was added from the row's new version, but the row itself, joined with the level of its old version,
-- was not rolled: the next roll added the month again.
-- Here one statement locks the due rows. The next one has a later snapshot, so it reads the versions that are locked.
-- Month and roll come from the same read, and nothing that the read found is checked again.

create or replace function roll_chat_quotas(users text[], to_period integer, to_reset_at timestamptz, at timestamptz)
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
        select user_uuid
        from chat_quotas
        where user_uuid = any (users)
          and period < to_period
        order by user_uuid
        for update
    ) as due;
    if locked is null then
        return 0;
    end if;

    with due as (
        select quotas.user_uuid, quotas.membership_level, quotas.monthly_quota, quotas.monthly_used, quotas.monthly_overage,
               quotas.period, levels.name as next_level, levels.monthly_quota as next_quota
        from chat_quotas as quotas
        join membership_levels as levels on levels.name = coalesce(quotas.pending_level, quotas.membership_level)
        where quotas.user_uuid = any (locked)
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
    set period = to_period,
        quota_reset_at = to_reset_at,
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
