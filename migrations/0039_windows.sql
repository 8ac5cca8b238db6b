-- Windows and concurrency of levels. Windows of a user have no rows: a charge's row of the log names each window that
-- it counted in, and how much. So the windows after a loss of Redis, and what `verify` compares, are sums of the log.

alter table membership_levels
    add column windows text not null default '',
    add column longest_window_minutes integer not null default 0,
    add column concurrency smallint
        constraint membership_levels_concurrency check (concurrency between 1 and 64);

comment on column membership_levels.windows is 'limits per window, for example: 5h ap 80, 1m requests 20';
comment on column membership_levels.longest_window_minutes is
    'of all windows that the level has ever had: a window that was removed runs to its end';
comment on column membership_levels.concurrency is 'maximum live holds of a user; null: unlimited';

-- Null for a charge that counted in no window. Then the row is as long as before.
alter table chat_usage_logs add column windows bytea;

comment on column chat_usage_logs.windows is
    'of each window 13 bytes: length in minutes (2), unit (1: 1 AP, 2 requests), start in ms (6), what was counted (4)';

-- Takes a value of `chat_usage_logs.windows` apart.
create function window_counts(packed bytea)
returns table (minutes integer, unit integer, start_ms bigint, counted bigint)
language sql
immutable
strict
as $$
    select (get_byte(packed, at) << 8) + get_byte(packed, at + 1),
           get_byte(packed, at + 2),
           (get_byte(packed, at + 3)::bigint << 40) + (get_byte(packed, at + 4)::bigint << 32)
               + (get_byte(packed, at + 5)::bigint << 24) + (get_byte(packed, at + 6) << 16)
               + (get_byte(packed, at + 7) << 8) + get_byte(packed, at + 8),
           (get_byte(packed, at + 9)::bigint << 24) + (get_byte(packed, at + 10) << 16)
               + (get_byte(packed, at + 11) << 8) + get_byte(packed, at + 12)
    from generate_series(0, length(packed) - 13, 13) as series (at)
$$;

-- The newest window of each length and unit of a user: minutes, unit, start in ms, and the sum that it counted, in one
-- list. Reads the log of the longest window's length before the last change of the user's row. A window that runs has
-- counted nothing before. Two minutes more, because clocks differ.
create function newest_windows(of_user text, updated_at timestamptz) returns bigint[]
language sql
stable
as $$
    select array_agg(field.value order by newest.minutes, newest.unit, field.place)
    from (
        select distinct on (counts.minutes, counts.unit)
               counts.minutes, counts.unit, counts.start_ms, sum(counts.counted)::bigint as counted
        from chat_usage_logs as logs
        cross join lateral window_counts(logs.windows) as counts
        where logs.user_uuid = of_user
          and logs.created_at >= updated_at
              - make_interval(mins => 2 + (select max(longest_window_minutes) from membership_levels))
          and logs.windows is not null
        group by counts.minutes, counts.unit, counts.start_ms
        order by counts.minutes, counts.unit, counts.start_ms desc
    ) as newest
    cross join lateral unnest(array[newest.minutes, newest.unit, newest.start_ms, newest.counted])
        with ordinality as field (value, place)
$$;
