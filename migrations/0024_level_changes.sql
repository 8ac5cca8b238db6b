-- Levels come from Postgres for every gate, never from a gate's own configuration (decision 0018). Each change of them
-- is a row here; the newest is in force. Versions rise with time, so that a change after a restore of Postgres is newer
-- than what Redis has.
create table level_changes (
    version bigint primary key,
    changed_at timestamptz not null,
    changes text not null,
    moved_at timestamptz
);
comment on column level_changes.changes is 'what changed, for people';
comment on column level_changes.moved_at is 'when all users had the quota of their level; null: `levels apply` is not finished';

alter table membership_levels
    add column retired boolean not null default false,
    add column quota_version bigint not null default 0;
comment on column membership_levels.retired is 'not offered any more; users who have the level keep its name and quota';
comment on column membership_levels.quota_version is 'the version in which the quota last changed';
