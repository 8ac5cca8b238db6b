-- The usage log: one row per charge, partitioned by month of the charge. `created_at` is the time of the event (Redis
-- TIME), not of the insert, so an event always goes to the same partition. The primary key rejects a charge that is
-- inserted twice.

create table chat_usage_logs (
    uuid uuid not null,
    user_uuid text collate "C" not null,
    session_id text not null,
    membership_level text collate "C" not null,
    period integer not null,
    tokens_used integer not null,
    ap_used integer not null constraint chat_usage_logs_ap check (ap_used >= 0),
    overage integer not null constraint chat_usage_logs_overage check (overage >= 0),
    kind text not null,
    created_at timestamptz not null,
    primary key (uuid, created_at)
) partition by range (created_at);

create index idx_chat_usage_logs_user_date on chat_usage_logs (user_uuid, created_at);
create index idx_chat_usage_logs_membership on chat_usage_logs (membership_level, created_at);

create table chat_usage_logs_default partition of chat_usage_logs default;
