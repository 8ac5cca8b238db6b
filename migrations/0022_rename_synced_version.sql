-- Names the column and the index after the level sync, the job that sends level changes to Redis.
alter table chat_quotas rename column told_version to synced_version;
alter index idx_chat_quotas_untold rename to idx_chat_quotas_unsynced;
comment on column chat_quotas.synced_version is 'the level version that Redis has received';
