-- For whom the gate decides: every change, with who made it and why. The newest row is what holds, for all gates.

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
    'a configuration counts when it says something else than the last one did, not whenever a gate starts';
