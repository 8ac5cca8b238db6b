-- Grants: AP of a user beside the quota of the level. What is left is granted - charged - transferred; the clock and
-- `voided_at` say whether it remains, has expired or is voided, so no job moves it. No check requires that something is
-- left: charges that were lost and come back would block the drain. A grant's number is the user's `grants_version` at
-- its creation, taken under the lock of the user's row. A void takes the next version. Versions rise with time, so that
-- a change after a restore of Postgres is newer than what Redis has. No foreign key to the user's row: a transfer
-- inserts the receiver's grant, and must not lock a row of another partition.

create table grants (
    id uuid primary key,
    user_uuid text collate "C" not null
        constraint grants_user check (user_uuid ~ '^[A-Za-z0-9._:@-]{1,128}$'),
    meter smallint not null default 0,
    number bigint,
    granted bigint not null constraint grants_granted check (granted >= 0),
    charged bigint not null default 0 constraint grants_charged check (charged >= 0),
    transferred bigint not null default 0 constraint grants_transferred check (transferred >= 0),
    expires_at timestamptz,
    priority smallint not null constraint grants_priority check (priority between 0 and 255),
    source text not null,
    reason text not null,
    external_id text collate "C",
    payment text collate "C",
    source_event uuid,
    source_place smallint,
    created_at timestamptz not null,
    created_by text not null,
    voided_at timestamptz,
    voided_by text,
    void_reason text,
    constraint grants_external_id unique (user_uuid, meter, external_id),
    constraint grants_number unique (user_uuid, meter, number),
    constraint grants_source_event unique (source_event, source_place)
) with (fillfactor = 80);

comment on column grants.number is 'null until the grant has a number: it was transferred, and Redis has not heard of it';
comment on column grants.source_event is 'the transfer that made the grant; source_place is the place of its part';

-- The grants that a payment bought, for its refund.
create index idx_grants_payment on grants (payment) where payment is not null;

-- Grants that transfers made, and that still need a number. Nearly always empty.
create index idx_grants_unnumbered on grants (user_uuid) where number is null;

alter table chat_quotas
    add column grants_version bigint not null default 0,
    add column grants_synced bigint not null default 0;
comment on column chat_quotas.grants_version is 'rises with every change of the grants of this user';
comment on column chat_quotas.grants_synced is 'the grants_version that Redis has received';

-- Users whose changed grants the grant sync still has to send to Redis. Nearly always empty.
create index idx_chat_quotas_grants_unsynced on chat_quotas (user_uuid) where grants_synced < grants_version;

-- Payments for packs, by the id of the billing system. Its events are repeated and arrive in any order: each column
-- takes the largest value that an event has reported, so the state does not depend on the order.
create table payments (
    payment text collate "C" primary key,
    amount bigint,
    refunded bigint not null default 0,
    disputed boolean not null default false,
    updated_at timestamptz not null
);
comment on column payments.amount is 'in the smallest unit of its currency; null until an event has reported it';

-- What is left of a user's grants that are not voided: number, AP left, expiry in ms (0: never) and priority of each,
-- in one list. Expired grants are included; the caller knows the time.
create function left_of_grants(of_user text) returns bigint[]
language sql
stable
as $$
    select array_agg(field.value order by grants.number, field.place)
    from grants
    cross join lateral unnest(array[
        grants.number,
        grants.granted - grants.charged - grants.transferred,
        coalesce((extract(epoch from grants.expires_at) * 1000)::bigint, 0),
        grants.priority::bigint
    ]) with ordinality as field (value, place)
    where grants.user_uuid = of_user
      and grants.meter = 0
      and grants.number is not null
      and grants.granted > grants.charged + grants.transferred
      and grants.voided_at is null
$$;

alter table user_changes add column grant_id uuid;
alter table user_changes
    drop constraint user_changes_kind,
    add constraint user_changes_kind check (
        kind in ('level', 'hold_released', 'forgotten', 'quota', 'blocked', 'unblocked', 'granted', 'grant_voided')
    ) not valid;
