-- How far each partition's usage events are in Postgres. A null last_id means that the partition is being opened.

create table flush_watermarks (
    partition smallint primary key,
    generation integer not null,
    last_id text,
    last_event uuid not null,
    opened_at timestamptz not null,
    updated_at timestamptz not null
);
