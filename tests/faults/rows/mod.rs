//! The faults, grouped by the component that they affect.

mod clients;
mod clocks;
mod flushing;
mod gates;
mod levels;
mod periods;
mod postgres;
mod redis;
mod resources;
mod upgrade;

use std::pin::Pin;

use crate::run::Verdict;

type Outcome = Pin<Box<dyn Future<Output = anyhow::Result<Verdict>>>>;

/// One fault.
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    /// When the row runs.
    pub(crate) class: Class,
    pub(crate) run: fn(u64) -> Outcome,
}

/// When a row runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Always, as part of `make test`.
    Short,
    /// With `--all`.
    Ordinary,
    /// Only when selected by number, because it takes many minutes.
    Long,
}

macro_rules! rows {
    ($($number:literal $name:literal $run:path $(, $class:ident)?;)*) => {
        /// Every fault, in the order of the reliability table.
        pub(crate) const ROWS: &[Row] = &[$(
            Row { number: $number, name: $name, class: rows!(@ $($class)?), run: |seed| Box::pin($run(seed)) },
        )*];
    };
    (@ short) => { Class::Short };
    (@ long) => { Class::Long };
    (@) => { Class::Ordinary };
}

rows! {
    1 "a gate is killed" gates::killed, short;
    2 "a gate is paused and resumes" gates::paused;
    3 "Redis is killed, appendfsync everysec" redis::killed, short;
    4 "Redis is killed, appendfsync always" redis::killed_always;
    5 "Redis is paused" redis::paused;
    6 "FLUSHALL" redis::flushed, short;
    7 "Redis restarts empty" redis::restarts_empty;
    8 "Redis restarts from an older copy" redis::restarts_from_older_copy;
    9 "failover to a lagging replica" redis::fails_over;
    10 "the old primary still accepts writes" redis::splits, short;
    11 "Postgres is killed during a batch" postgres::killed, short;
    12 "the connection is cut at COMMIT" postgres::cut_at_commit, short;
    13 "Postgres is slow, then paused" postgres::slow;
    14 "Postgres is restored from an older copy" postgres::restored_from_older_copy;
    15 "a gate is killed between COMMIT and trim" flushing::killed_before_trim;
    16 "a flusher is paused in its transaction" flushing::paused_in_transaction;
    17 "ten requests are sent 100 times each" clients::repeats;
    18 "events cannot be read or stored" flushing::unreadable_events;
    19 "Redis' disk is full" resources::redis_disk;
    20 "Postgres' disk is full" resources::postgres_disk;
    21 "Redis' memory is full" resources::redis_memory;
    22 "clocks jump" clocks::jump;
    23 "the month ends under load" clocks::month_ends;
    24 "levels change under load" clients::levels_change;
    25 "clients disconnect during a request" clients::disconnect;
    26 "functions and permissions are removed" redis::functions_removed;
    27 "gates are restarted one after the other" gates::restarted_in_turn, short;
    28 "all partitions are lost while 100,000 events wait" flushing::backlog;
    29 "Postgres is unavailable for ten minutes" postgres::unavailable_for_long, long;
    30 "Redis' answers are lost" redis::answers_lost, short;
    31 "a cluster slot moves to another node and back" redis::slot_moves;
    32 "Redis is unavailable, and messages are allowed" redis::messages_allowed;
    33 "Redis with the shipped accounts restarts with everything unflushed" redis::restarts_unflushed;
    34 "gates of different configuration, level quotas change under load" levels::configured_in_turn;
    35 "Redis is away for longer than holds live" redis::away_beyond_holds;
    36 "a partition of the log is due behind a long reader" postgres::partition_behind_reader, short;
    37 "one gate is moved to another Redis" gates::moved_to_another_redis, short;
    38 "Redis restarts, and gates have fewer connections than partitions" redis::killed_with_few_connections;
    39 "periods of anchor days end under load" periods::end_under_load;
    40 "gates of release 0.1.0 are replaced by new ones" upgrade::rolling, long;
}
