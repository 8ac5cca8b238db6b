-- Which process is opening a partition, and until when others wait for it. It saves duplicate work; the conditions of
-- the opening make concurrent openers safe. A row, not an advisory lock: a lock would keep a connection of the pool
-- while the opener needs others, and does not work behind a pooler that shares sessions.
alter table flush_watermarks
    add column opener uuid,
    add column opener_until timestamptz;
comment on column flush_watermarks.opener is 'the process that is opening the partition';
comment on column flush_watermarks.opener_until is 'when another process may take the opening over; renewed with each part of the drain';
