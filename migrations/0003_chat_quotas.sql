-- One row per user, for the current period. User ids are text: a UUID or any other id of the product.
-- The fill factor leaves room to update a row in place. Only a roll and a change of level update indexed columns.

create table chat_quotas (
    user_uuid text collate "C" primary key
        constraint chat_quotas_user check (user_uuid ~ '^[A-Za-z0-9._:@-]{1,128}$'),
    membership_level text collate "C" not null
        constraint chat_quotas_level references membership_levels (name),
    level_version integer not null default 0,
    told_version integer not null default 0,
    pending_level text collate "C"
        constraint chat_quotas_pending_level references membership_levels (name),
    period integer not null,
    monthly_quota integer not null constraint chat_quotas_quota check (monthly_quota >= 0),
    monthly_used bigint not null default 0 constraint chat_quotas_used check (monthly_used >= 0),
    monthly_overage bigint not null default 0 constraint chat_quotas_overage check (monthly_overage >= 0),
    quota_reset_at timestamptz not null,
    total_used bigint not null default 0 constraint chat_quotas_total check (total_used >= 0),
    created_at timestamptz not null,
    updated_at timestamptz not null
) with (fillfactor = 80);

comment on column chat_quotas.told_version is 'the level version that Redis has received';

-- Users whose level change the level sync still has to send to Redis. Nearly always empty.
create index idx_chat_quotas_untold on chat_quotas (user_uuid) where told_version < level_version;

create index idx_chat_quotas_membership on chat_quotas (membership_level);
create index idx_chat_quotas_reset_at on chat_quotas (quota_reset_at, user_uuid);
