-- What billing last said of each subscription. Its events come again, and in any order: the newest counts. `applied` says whether the user's
-- level follows it yet.

create table subscriptions (
    subscription text collate "C" primary key,
    user_uuid text collate "C" not null,
    membership_level text collate "C",
    event_id text not null,
    event_at timestamptz not null,
    applied boolean not null default false
);

comment on column subscriptions.membership_level is 'null for one that has ended';

create index idx_subscriptions_user on subscriptions (user_uuid);
