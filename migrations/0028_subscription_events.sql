-- Billing events of the last weeks. An id that is here is a repeated event. The events of one second have no order of
-- their own, so each row also has what the event says about the state before it.
-- The resetter deletes rows after more time than the billing system can repeat an event. One that is repeated later is
-- older than, or the same as, the event in `subscriptions`.

create table subscription_events (
    event_id text collate "C" primary key,
    subscription text collate "C" not null,
    event_at timestamptz not null,
    stage smallint not null,
    user_uuid text collate "C" not null,
    membership_level text collate "C",
    state_before text,
    received bigint generated always as identity,
    received_at timestamptz not null
);

comment on column subscription_events.membership_level is 'null if nothing is paid for';
comment on column subscription_events.state_before is 'user and level before the event; null if it does not say';

create index idx_subscription_events_of on subscription_events (subscription, event_at);
create index idx_subscription_events_received_at on subscription_events (received_at);

-- What is applied. Stage 2 is that of most events.
insert into subscription_events (event_id, subscription, event_at, stage, user_uuid, membership_level, received_at)
select event_id, subscription, event_at, 2, user_uuid, membership_level, event_at
from subscriptions
where applied
on conflict (event_id) do nothing;
