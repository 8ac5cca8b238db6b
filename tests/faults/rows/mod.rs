//! The faults, by what they happen to.

mod clients;
mod clocks;
mod flushing;
mod gates;
mod postgres;
mod redis;
mod resources;

use std::pin::Pin;

use crate::run::Verdict;

type Outcome = Pin<Box<dyn Future<Output = anyhow::Result<Verdict>>>>;

/// One fault.
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    /// When it is run.
    pub(crate) class: Class,
    pub(crate) run: fn(u64) -> Outcome,
}

/// When a row is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Always, as part of `make test`.
    Short,
    /// With `--all`.
    Ordinary,
    /// When it is asked for by its number: it takes many minutes.
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
    2 "a gate stands still and goes on" gates::stands_still;
    3 "Redis is killed, appendfsync everysec" redis::killed, short;
    4 "Redis is killed, appendfsync always" redis::killed_always;
    5 "Redis stands still" redis::stands_still;
    6 "FLUSHALL" redis::flushed, short;
    7 "Redis comes back empty" redis::comes_back_empty;
    8 "Redis comes back as an older copy" redis::comes_back_older;
    9 "failover to a replica that is behind" redis::fails_over;
    10 "the old primary still takes writes" redis::splits, short;
    11 "Postgres is killed in the middle of a batch" postgres::killed, short;
    12 "the connection ends at COMMIT" postgres::cut_at_commit, short;
    13 "Postgres is slow, then stands still" postgres::slow;
    14 "Postgres comes back as an older copy" postgres::comes_back_older;
    15 "a gate is killed between COMMIT and trim" flushing::killed_before_trim;
    16 "a flusher sleeps in its transaction" flushing::sleeps_in_transaction;
    17 "the same request a thousand times" clients::repeats;
    18 "events that nobody can read or store" flushing::poison;
    19 "Redis' disk is full" resources::redis_disk;
    20 "Postgres' disk is full" resources::postgres_disk;
    21 "Redis' memory is full" resources::redis_memory;
    22 "clocks jump" clocks::jump;
    23 "the month ends under load" clocks::month_ends;
    24 "levels change under load" clients::levels_change;
    25 "clients vanish in the middle" clients::vanish;
    26 "functions and permissions are taken away" redis::forgets_functions;
    27 "gates are restarted one after the other" gates::restarted_in_turn, short;
    28 "100,000 events wait when a partition is lost" flushing::backlog;
    29 "Postgres is away for ten minutes" postgres::away_for_long, long;
    30 "answers of Redis are lost" redis::answers_lost, short;
    31 "a slot of a cluster moves away and back" redis::slot_moves;
    32 "Redis is away, and messages are let through" redis::lets_messages_through;
}
