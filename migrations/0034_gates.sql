-- Which Redis serves. All gates of an installation must use one Redis: gates that use two would each open generations
-- of their own, and charge each user's quota twice. A gate opens a partition in another Redis only if no gate is
-- connected to the one in which the partition is open (decision 0019). Times are those of Postgres.
create table gates (
    id uuid primary key,
    redis_process text,
    redis_address text not null,
    is_refused boolean not null,
    started_at timestamptz not null,
    seen_at timestamptz not null
);
comment on table gates is 'running gates; each updates its row every second and deletes it when it stops';
comment on column gates.redis_process is 'the Redis process to which the gate is connected now; null for none';
comment on column gates.redis_address is 'host and port of redis.url';
comment on column gates.is_refused is 'the gate does not serve, because other gates serve from another Redis';

alter table flush_watermarks add column fence text;
comment on column flush_watermarks.fence is
    'the fence of the open generation: it names the generation and the Redis process in which it was opened';
