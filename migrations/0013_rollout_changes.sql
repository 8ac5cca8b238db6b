-- Every change of the rollout, with its author and reason. The newest row is in force for all gates.

create table rollout_changes (
    id bigint generated always as identity primary key,
    changed_at timestamptz not null,
    changed_by text not null,
    reason text not null,
    mode text not null constraint rollout_changes_mode check (mode in ('off', 'shadow', 'enforce')),
    percentage double precision not null constraint rollout_changes_percentage check (percentage between 0 and 100),
    always_in text[] collate "C" not null,
    always_out text[] collate "C" not null,
    from_configuration boolean not null
);

comment on column rollout_changes.from_configuration is
    'a configuration becomes a row when it differs from the last configuration, not at every start of a gate';
