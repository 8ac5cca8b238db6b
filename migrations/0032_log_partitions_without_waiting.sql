-- Creating a partition takes a strong lock on the default partition, which every reader of the whole log blocks. Behind
-- a backup it waited, and every later statement on the log waited for it. Now it waits for 200 ms at most, and the
-- caller tries again. Nothing is locked if the partition exists.

create or replace function ensure_usage_log_partition(month date) returns boolean
language plpgsql
security definer
set search_path from current
set lock_timeout = '200ms'
as $$
declare
    month_start timestamptz := date_trunc('month', month::timestamp) at time zone 'UTC';
    month_end timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') at time zone 'UTC';
    partition_name text := 'chat_usage_logs_' || to_char(month, 'YYYYMM');
begin
    if usage_log_partition_exists(partition_name) then
        return false;
    end if;
    -- One caller at a time; the next one finds the partition.
    perform pg_advisory_xact_lock(hashtext('ensure_usage_log_partition'));
    if usage_log_partition_exists(partition_name) then
        return false;
    end if;
    execute format('create table %I (like chat_usage_logs including defaults including constraints)', partition_name);
    -- The locks of `attach partition`, in its order. From here no row goes to the default partition.
    lock table only chat_usage_logs in share update exclusive mode;
    lock table chat_usage_logs_default in access exclusive mode;
    execute format(
        'with moved as (delete from chat_usage_logs_default where created_at >= %L and created_at < %L returning *)
         insert into %I select * from moved',
        month_start, month_end, partition_name
    );
    execute format(
        'alter table chat_usage_logs attach partition %I for values from (%L) to (%L)',
        partition_name, month_start, month_end
    );
    return true;
end
$$;

-- Reads pg_inherits, because to_regclass may answer from what this session cached before it waited.
create function usage_log_partition_exists(partition_name text) returns boolean
language sql
as $$
    select exists (
        select from pg_inherits
        join pg_class on pg_class.oid = pg_inherits.inhrelid
        where pg_inherits.inhparent = 'chat_usage_logs'::regclass
          and pg_class.relname = partition_name
    )
$$;
revoke execute on function usage_log_partition_exists(text) from public;
