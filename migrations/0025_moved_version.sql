-- Which users `levels apply` has moved, so that it continues where it was interrupted. Only it writes this column: a
-- roll may give a row the new quota while Redis still rolls with the old one, so a rolled row is not a moved one.
alter table chat_quotas add column moved_version bigint not null default 0;
comment on column chat_quotas.moved_version is 'the quota_version of the level that `levels apply` has given to this row and to Redis';
