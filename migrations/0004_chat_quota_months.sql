-- Closed periods: one row per user and past month.

create table chat_quota_months (
    user_uuid text collate "C" not null,
    period integer not null,
    membership_level text collate "C" not null,
    monthly_quota integer not null,
    used bigint not null default 0,
    overage bigint not null default 0,
    primary key (user_uuid, period)
);
