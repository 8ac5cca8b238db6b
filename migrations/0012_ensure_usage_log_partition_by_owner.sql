-- The function runs as the log's owner, because the gate's role may not create tables.

alter function ensure_usage_log_partition(date) security definer;
alter function ensure_usage_log_partition(date) set search_path from current;
revoke execute on function ensure_usage_log_partition(date) from public;
