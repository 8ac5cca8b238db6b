-- The log's partitions are made by whoever owns the log, also when the gate asks, whose role may not make tables.

alter function ensure_usage_log_partition(date) security definer;
alter function ensure_usage_log_partition(date) set search_path from current;
revoke execute on function ensure_usage_log_partition(date) from public;
