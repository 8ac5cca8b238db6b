-- The latest billing event of each subscription. Events are repeated and arrive in any order; the newest counts.
-- `applied` is true once the user's level follows the event.

create table subscriptions (
    subscription text collate "C" primary key,
    user_uuid text collate "C" not null,
    membership_level text collate "C",
    event_id text not null,
    event_at timestamptz not null,
    applied boolean not null default false
);

comment on column subscriptions.membership_level is 'null if the subscription has ended';

create index idx_subscriptions_user on subscriptions (user_uuid);
