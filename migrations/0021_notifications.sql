-- Events for the product's own systems: thresholds, resets, levels. A trigger writes them in the transaction that
-- changes the row, so none is missed. The conditions are on the trigger itself: a row that crosses no threshold costs
-- one comparison.
-- A reset is reported only for users who had been warned.

create table notifications (
    id uuid primary key default gen_random_uuid(),
    kind text not null constraint notifications_kind
        check (kind in ('quota.warning', 'quota.critical', 'quota.exhausted', 'quota.reset', 'level.changed')),
    user_uuid text collate "C" not null,
    period integer not null,
    membership_level text not null,
    previous_level text,
    pending_level text,
    monthly_quota integer not null,
    monthly_used bigint not null,
    created_at timestamptz not null,
    due_at timestamptz not null,
    attempts integer not null default 0,
    last_error text,
    sent_at timestamptz
);

comment on column notifications.due_at is 'for a claimed row: when another gate may claim it';

create index idx_notifications_due on notifications (due_at) where sent_at is null;
-- Each threshold once per user and period. Rows are kept for as long as a duplicate is possible.
create unique index idx_notifications_once on notifications (user_uuid, period, kind) where kind <> 'level.changed';

alter table gate_settings add column notifies boolean not null default false;

create function notify_of_quota() returns trigger
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
            ('quota.reset', old.period < new.period and old.monthly_used * 100 > old.monthly_quota::bigint * 80),
            ('quota.warning', new.monthly_used * 100 > new.monthly_quota::bigint * 80
                and (old.period < new.period or old.monthly_used * 100 <= old.monthly_quota::bigint * 80)),
            ('quota.critical', new.monthly_used * 100 > new.monthly_quota::bigint * 95
                and (old.period < new.period or old.monthly_used * 100 <= old.monthly_quota::bigint * 95)),
            ('quota.exhausted', new.monthly_used >= new.monthly_quota
                and (old.period < new.period or old.monthly_used < old.monthly_quota))
    ) as crossed (kind, is_crossed)
    where is_crossed
    on conflict do nothing;
    return null;
end
$$;

create trigger notify_of_quota
after update on chat_quotas
for each row
when (
    (new.monthly_used <> old.monthly_used or new.monthly_quota <> old.monthly_quota
        or new.membership_level <> old.membership_level or new.pending_level is distinct from old.pending_level
        or new.period <> old.period)
    and (
        new.monthly_used * 100 > new.monthly_quota::bigint * 80
        or old.monthly_used * 100 > old.monthly_quota::bigint * 80
        or new.membership_level <> old.membership_level
        or new.pending_level is distinct from old.pending_level
    )
)
execute function notify_of_quota();
