//! The script that decides: its source, and how a call of it is made.
//!
//! One file per operation, joined at build time, so there is one SHA and one round trip for a batch of any mixture.
//! Called by `EVALSHA`; when Redis does not know it (a restart, a failover), it is loaded and called again,
//! for `NOSCRIPT` proves that nothing ran.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use redis::{Value, aio::MultiplexedConnection};

use super::{
    error::RedisError,
    keys,
    operation::{OutcomeKey, Request, encode_calendar},
};
use crate::domain::{calendar::Calendar, level::Levels, partition::Partition};

/// Reads the clock of Redis.
const CLOCK: &str = include_str!("../../../lua/operation/clock.lua");

/// Everything after the clock, in the order in which one file uses another's locals.
const OPERATIONS: &str = concat!(
    include_str!("../../../lua/operation/protocol.lua"),
    include_str!("../../../lua/operation/record.lua"),
    include_str!("../../../lua/operation/journal.lua"),
    include_str!("../../../lua/operation/answer.lua"),
    include_str!("../../../lua/operation/seed.lua"),
    include_str!("../../../lua/operation/consume.lua"),
    include_str!("../../../lua/operation/reserve.lua"),
    include_str!("../../../lua/operation/settlement.lua"),
    include_str!("../../../lua/operation/commit.lua"),
    include_str!("../../../lua/operation/release.lua"),
    include_str!("../../../lua/operation/extend.lua"),
    include_str!("../../../lua/operation/peek.lua"),
    include_str!("../../../lua/operation/set_level.lua"),
    include_str!("../../../lua/operation/call.lua"),
);

/// The script, with the clock that it reads.
#[derive(Debug, Clone)]
pub struct Script(redis::Script);

/// What every call says besides its operations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) partition: Partition,
    pub(super) generation: u32,
    pub(super) now: DateTime<Utc>,
    pub(super) calendar: Calendar,
    pub(super) levels: &'a Levels,
    pub(super) stream_entries_max: u32,
}

impl Default for Script {
    fn default() -> Self {
        Self::with_clock(CLOCK)
    }
}

impl Script {
    /// The same script with another first file, which has to define `now_ms`. For tests that travel in time.
    #[must_use]
    pub fn with_clock(clock: &str) -> Self {
        Self(redis::Script::new(&format!("{clock}{OPERATIONS}")))
    }

    /// Calls the script for these requests. The requests fit: at most [`Self::REQUESTS_MAX`].
    pub(super) async fn call(
        &self,
        connection: &mut MultiplexedConnection,
        context: &Context<'_>,
        requests: &[&Request],
    ) -> Result<Vec<u8>, RedisError> {
        let command = self.command(context, requests);
        let reply = match command.query_async::<Value>(connection).await {
            Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript) => {
                self.load(connection).await?;
                command.query_async::<Value>(connection).await
            }
            reply => reply,
        };
        match reply {
            Ok(Value::BulkString(bytes)) => Ok(bytes),
            Ok(other) => Err(RedisError::Indeterminate(format!("the script answered {other:?}"))),
            Err(error) => Err(RedisError::of_sent(&error)),
        }
    }

    /// Each request takes a key for its record and perhaps one for its outcome, and a slot is one byte.
    pub(super) const REQUESTS_MAX: usize = 120;

    async fn load(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        self.0.prepare_invoke().load_async(connection).await.map(|_| ()).map_err(RedisError::not_executed)
    }

    fn command(&self, context: &Context<'_>, requests: &[&Request]) -> redis::Cmd {
        let Context { partition, generation, now, calendar, levels, stream_entries_max } = *context;
        let mut slots = Slots::new(keys::fence(partition));
        let mut operations: Vec<Vec<u8>> = Vec::with_capacity(requests.len());
        for request in requests {
            let slot = slots.of(keys::record(partition, &request.user));
            let outcome = match request.operation.outcome_key() {
                OutcomeKey::None => 0,
                OutcomeKey::Idempotency(key) => slots.of(keys::outcome(partition, &request.user, key)),
                OutcomeKey::Settlement(hold) => slots.of(keys::settlement(partition, hold)),
            };
            if let Some(seed) = &request.seed {
                let mut bytes = Vec::with_capacity(48);
                seed.encode(slot, &mut bytes);
                operations.push(bytes);
            }
            let mut bytes = Vec::with_capacity(128);
            request.operation.encode(&request.user, slot, outcome, &mut bytes);
            operations.push(bytes);
        }

        let mut command = redis::cmd("EVALSHA");
        command.arg(self.0.get_hash()).arg(slots.keys.len() + 1);
        for key in &slots.keys {
            command.arg(key);
        }
        command.arg(keys::stream(partition, generation));
        command.arg(generation).arg(encode_calendar(now, &calendar.bounds_at(now), stream_entries_max, levels));
        for operation in &operations {
            command.arg(operation.as_slice());
        }
        command
    }
}

/// The keys of a call, each once. A slot is a key's place, counted from 1 as Lua does.
struct Slots {
    keys: Vec<String>,
    by_key: HashMap<String, u8>,
}

impl Slots {
    fn new(fence: String) -> Self {
        Self { keys: vec![fence], by_key: HashMap::new() }
    }

    fn of(&mut self, key: String) -> u8 {
        if let Some(slot) = self.by_key.get(&key) {
            return *slot;
        }
        self.keys.push(key.clone());
        let slot = u8::try_from(self.keys.len()).unwrap_or(u8::MAX);
        self.by_key.insert(key, slot);
        slot
    }
}
