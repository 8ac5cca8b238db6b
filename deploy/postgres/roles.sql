-- The gate's role, with minimal privileges: it cannot create or drop tables, update or delete rows of the log, or
-- delete or forget users. Run this as the owner of the tables after each `quota-gate migrate` (which the owner runs
-- too). It is safe to run again. Keep the password off the command line:
--
--   (printf "\\set password '%s'\n" "$(cat password-file)"; cat deploy/postgres/roles.sql) | psql "$OWNER_URL"
--
-- `quota-gate dev` uses this file.

select 'create role quota_gate login' where not exists (select from pg_roles where rolname = 'quota_gate') \gexec
alter role quota_gate login nosuperuser nocreatedb nocreaterole noinherit password :'password';

revoke create on schema public from public;
grant usage on schema public to quota_gate;
revoke all on all tables in schema public from quota_gate;

-- The log and the histories are append-only.
grant select, insert on chat_usage_logs, rollout_changes, user_changes to quota_gate;
grant select on chat_usage_logs_default, _sqlx_migrations, schema_compatibility to quota_gate;
grant select, insert, update on
    chat_quotas, chat_quota_months, flush_watermarks, gate_settings, grants, level_changes, membership_levels, meter_levels,
    meter_usage, meters, payments, reset_runs, subscriptions, usage_days
    to quota_gate;
grant select, insert, update, delete on inbox, dead_letters, dual_writes, notifications, gates to quota_gate;
grant select, insert, delete on subscription_events to quota_gate;
grant execute on function
    roll_chat_quotas(text[], integer, timestamptz, timestamptz), ensure_usage_log_partition(date), usage_drift(),
    left_of_grants(text), left_of_meter_grants(text, smallint)
    to quota_gate;
