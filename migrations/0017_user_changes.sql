-- Changes of users other than by messages, with author and reason. Written in the transaction of the change.

create table user_changes (
    id bigint generated always as identity primary key,
    changed_at timestamptz not null,
    changed_by text not null,
    reason text not null,
    user_uuid text collate "C" not null,
    kind text not null constraint user_changes_kind check (kind in ('level', 'hold_released')),
    level_before text,
    level_after text,
    effective_period integer,
    hold uuid,
    ap integer
);

comment on column user_changes.effective_period is 'first period of a change of level that is not immediate';

create index idx_user_changes_changed_at on user_changes (changed_at, id);
create index idx_user_changes_user on user_changes (user_uuid, changed_at, id);
