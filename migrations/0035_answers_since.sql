-- Since when Redis has every answer to a request with an Idempotency-Key, for each partition. An opening that finds the
-- last flushed entry in Redis has lost no answer that Postgres could know, so requests with a key need no look-up
-- (decision 0021). `answers_generation` is the generation in which that was determined: an older gate, which does not
-- know these columns, opens a generation without it.
alter table flush_watermarks
    add column answers_since timestamptz,
    add column answers_generation integer;
comment on column flush_watermarks.answers_since is 'when answers were last lost with the data of Redis; null: never';
comment on column flush_watermarks.answers_generation is 'the generation for which answers_since holds; in any other, answers are complete since opened_at';
