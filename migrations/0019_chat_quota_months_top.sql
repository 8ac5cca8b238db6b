-- Finds the users with the highest usage in a closed month without reading the whole month.

create index idx_chat_quota_months_top on chat_quota_months (period, used desc);
