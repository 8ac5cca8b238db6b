-- Creates the log's partition for one month (UTC) if it is missing, and moves that month's rows out of the default
-- partition. Safe to call concurrently.

create function ensure_usage_log_partition(month date) returns boolean
language plpgsql
as $$
declare
    month_start timestamptz := date_trunc('month', month::timestamp) at time zone 'UTC';
    month_end timestamptz := (date_trunc('month', month::timestamp) + interval '1 month') at time zone 'UTC';
    partition_name text := 'chat_usage_logs_' || to_char(month, 'YYYYMM');
begin
    -- One caller at a time; the next one finds the partition. (Reads pg_inherits, because to_regclass may answer from
    -- what this session cached before it waited.)
    perform pg_advisory_xact_lock(hashtext('ensure_usage_log_partition'));
    if exists (
        select from pg_inherits
        join pg_class on pg_class.oid = pg_inherits.inhrelid
        where pg_inherits.inhparent = 'chat_usage_logs'::regclass
          and pg_class.relname = partition_name
    ) then
        return false;
    end if;
    execute format('create table %I (like chat_usage_logs including defaults including constraints)', partition_name);
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
