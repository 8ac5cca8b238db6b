-- Which grants paid for a message. Null for a message that the plan paid for, which is nearly every one; then the row
-- is as long as before. `plan_ap` is what the plan paid of `ap_used`, and the two lists name each grant by its number,
-- and what it paid.

alter table chat_usage_logs
    add column plan_ap integer constraint chat_usage_logs_plan_ap check (plan_ap >= 0),
    add column grant_numbers bigint[],
    add column grant_aps integer[];

comment on column chat_usage_logs.plan_ap is 'null: all of ap_used';
