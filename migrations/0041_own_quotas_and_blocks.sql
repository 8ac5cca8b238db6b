-- A quota of one user's own, which replaces that of the user's level, and blocked users, who may send no new message.
-- Both are set by hand. Like a change of level, a change raises level_version, so that the level sync sends it.

alter table chat_quotas
    add column own_quota integer constraint chat_quotas_own_quota check (own_quota >= 0),
    add column blocked boolean not null default false;

comment on column chat_quotas.own_quota is 'AP per period instead of those of the level; null for the quota of the level; 2147483647: unlimited';
comment on column chat_quotas.blocked is 'no new message is allowed; earlier holds can still be settled';

-- A roll, a change of level, an import and `levels apply` write the quota of the level. The user's own wins in all of
-- them, also if an older gate writes.
create function keep_own_quota() returns trigger
language plpgsql
as $$
begin
    new.monthly_quota := new.own_quota;
    return new;
end
$$;

create trigger keep_own_quota
before update of monthly_quota, own_quota on chat_quotas
for each row
when (new.own_quota is not null)
execute function keep_own_quota();

alter table user_changes
    add column quota_before integer,
    add column quota_after integer;

comment on column user_changes.quota_before is 'of a change of kind quota: AP per period; the same for quota_after';
comment on column user_changes.quota_after is 'null in a change of kind quota: the quota of the level counts again';
