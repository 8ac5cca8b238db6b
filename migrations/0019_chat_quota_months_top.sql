-- Who used most in a month that is closed, without reading all of it.

create index idx_chat_quota_months_top on chat_quota_months (period, used desc);
