-- The model that wrote the charged answer; empty if the caller named none.

alter table chat_usage_logs add column model text not null default '';
alter table inbox add column model text not null default '';
