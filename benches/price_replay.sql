-- Ten million messages of October 2026, of 200,000 users, to measure the price replay with:
--
--   quota-gate dev --data-dir /tmp/replay &
--   psql "$(jq -r .databaseUrl /tmp/replay/dev.json)" --file=benches/price_replay.sql
--   time quota-gate replay --data-dir /tmp/replay --from 2026-10-01 --to 2026-10-31 --levels levels.toml

select ensure_usage_log_partition('2026-10-01');

insert into chat_usage_logs
    (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, model, created_at)
select gen_random_uuid(),
       md5('user-' || who)::uuid::text,
       'chat-' || number % 50,
       (array['free', 'free', 'free', 'free', 'basic', 'basic', 'plus', 'pro'])[1 + who % 8],
       202610,
       (random() * 4000)::int,
       ap,
       0,
       'commit',
       (array['gpt-4o-mini', 'gpt-4o', 'o1'])[ap],
       timestamptz '2026-10-01Z' + number * (interval '31 days' / 10000000.0)
from (
    -- A few users send many messages.
    select number, floor(power(random(), 3) * 200000)::int as who, 1 + (random() * 2)::int as ap
    from generate_series(0, 9999999) as numbers (number)
) as messages;
