//! The script that decides: its source, and calls of it.
//!
//! One file per operation, joined at build time, so a batch of any mixture takes one round trip. It is a Redis function
//! whose name contains the hash of its source, so gates of two versions each call their own (decision 0008). If Redis
//! does not have it (first call, restart), it is loaded and called again: the error proves that nothing ran.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    connection::Redis,
    error::RedisError,
    fence::{Fence, ServerId},
    keys,
    operation::{OutcomeKey, Request},
    packed::PutBytes,
    tails::unix_ms,
    wire::{Received, Wire, put_array, put_bulk, put_decimal},
};
use crate::domain::{
    calendar::{AnchorDay, Bounds, Calendar},
    idempotency::IdempotencyKey,
    meter::MeterCode,
    partition::Partition,
    user_id::UserId,
};

/// Reads the clock of Redis.
const CLOCK: &str = include_str!("../../../lua/operation/clock.lua");

/// The files after the clock. Each uses only locals of the files before it.
const OPERATIONS: &str = concat!(
    include_str!("../../../lua/operation/protocol.lua"),
    include_str!("../../../lua/operation/periods.lua"),
    include_str!("../../../lua/operation/levels.lua"),
    include_str!("../../../lua/operation/holds.lua"),
    include_str!("../../../lua/operation/windows.lua"),
    include_str!("../../../lua/operation/grants.lua"),
    include_str!("../../../lua/operation/tails.lua"),
    include_str!("../../../lua/operation/record.lua"),
    include_str!("../../../lua/operation/journal.lua"),
    include_str!("../../../lua/operation/answer.lua"),
    include_str!("../../../lua/operation/idempotency.lua"),
    include_str!("../../../lua/operation/seed.lua"),
    include_str!("../../../lua/operation/pay.lua"),
    include_str!("../../../lua/operation/consume.lua"),
    include_str!("../../../lua/operation/reserve.lua"),
    include_str!("../../../lua/operation/settlement.lua"),
    include_str!("../../../lua/operation/commit.lua"),
    include_str!("../../../lua/operation/release.lua"),
    include_str!("../../../lua/operation/extend.lua"),
    include_str!("../../../lua/operation/peek.lua"),
    include_str!("../../../lua/operation/set_level.lua"),
    include_str!("../../../lua/operation/bring_grants.lua"),
    include_str!("../../../lua/operation/transfer.lua"),
    include_str!("../../../lua/operation/call.lua"),
);

/// The error for an unknown function.
const NOT_LOADED: &str = "ERR Function not found";
/// The end of the error for a library that is already loaded.
const LOADED_BEFORE: &str = "already exists";

/// The script, with the clock that it reads.
#[derive(Debug, Clone)]
pub struct Script {
    name: Arc<str>,
    /// Name of the same function for settlements while Redis' memory is full.
    settle_name: Arc<str>,
    library: Arc<str>,
}

/// Data of a call besides its operations.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Partition of the users.
    pub partition: Partition,
    /// Generation that the caller assumes to be open.
    pub generation: u32,
    /// Redis that the connection leads to.
    pub server: &'a ServerId,
    /// The caller's clock.
    pub now: DateTime<Utc>,
    /// Periods and days.
    pub calendar: Calendar,
    /// Maximum memory of the usage stream.
    pub stream_bytes_max: u64,
    /// Whether the call may exceed Redis' memory limit.
    pub memory: Memory,
}

/// Whether a call may exceed `maxmemory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Redis refuses the call while its memory is full.
    Limited,
    /// Redis executes the call although its memory is full.
    Unlimited,
}

/// A call being built. Its buffers are reused for the next call.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Keys after the fence, encoded for the wire.
    keys: Vec<u8>,
    /// Operations, encoded for the wire.
    operations: Vec<u8>,
    /// One operation.
    operation: Vec<u8>,
    /// The command.
    bytes: Vec<u8>,
}

impl Default for Script {
    fn default() -> Self {
        Self::with_clock(CLOCK)
    }
}

impl Script {
    /// Maximum requests per call. Each takes one or two keys (record, outcome), and a slot is one byte.
    pub const REQUESTS_MAX: usize = 120;

    /// Creates the script with another clock file, which must define `read_clock`. For tests that set the time.
    #[must_use]
    pub fn with_clock(clock: &str) -> Self {
        let source = format!("{clock}{OPERATIONS}");
        let name = format!("quota_gate_{:016x}", xxh3_64(source.as_bytes()));
        let library = format!("#!lua name={name}\nlocal NAME = '{name}'\n{source}");
        Self { settle_name: format!("{name}_settle").into(), name: name.into(), library: library.into() }
    }

    /// The encoded command that loads the function. Redis needs it once, before [`command`](Self::command).
    #[must_use]
    pub fn load_command(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_array(&mut bytes, 3);
        for word in ["FUNCTION", "LOAD", &self.library] {
            put_bulk(&mut bytes, word.as_bytes());
        }
        bytes
    }

    /// Loads the function, so that a gate can call it even if Redis' memory is full later.
    ///
    /// # Errors
    /// If Redis is unavailable, or its memory is full.
    pub async fn load(&self, redis: &Redis) -> Result<(), RedisError> {
        let (mut wire, _) = redis.wire().await?;
        match wire.send(&self.load_command()).await.map_err(RedisError::not_executed)? {
            Received::Refusal(words) if !words.ends_with(LOADED_BEFORE) => Err(RedisError::of_refusal(words)),
            _ => Ok(()),
        }
    }

    /// The encoded call of these requests, at most [`Self::REQUESTS_MAX`].
    #[must_use]
    pub fn command<'a>(&self, context: &Context<'_>, requests: impl IntoIterator<Item = &'a Request>) -> Vec<u8> {
        let mut call = Call::default();
        call.pack(self, context, requests);
        call.bytes
    }

    /// Calls the script for these requests, at most [`Self::REQUESTS_MAX`]. The connection then has the answer.
    pub(super) async fn call<'a>(
        &self,
        wire: &mut Wire,
        call: &mut Call,
        context: &Context<'_>,
        requests: impl IntoIterator<Item = &'a Request>,
    ) -> Result<(), RedisError> {
        call.pack(self, context, requests);
        let lost = |error| RedisError::Indeterminate(format!("{error}"));
        if wire.send(&call.bytes).await.map_err(lost)? == Received::Refusal(NOT_LOADED) {
            match wire.send(&self.load_command()).await.map_err(RedisError::not_executed)? {
                // Another worker has loaded it.
                Received::Refusal(words) if words.ends_with(LOADED_BEFORE) => {}
                Received::Refusal(words) => return Err(RedisError::of_refusal(words)),
                Received::Text(_) | Received::Other => {}
            }
            wire.send(&call.bytes).await.map_err(lost)?;
        }
        match wire.received() {
            Received::Text(_) => Ok(()),
            Received::Refusal(words) => Err(RedisError::of_refusal(words)),
            Received::Other => Err(RedisError::Indeterminate("the script did not return a string".into())),
        }
    }
}

impl Call {
    fn pack<'a>(&mut self, script: &Script, context: &Context<'_>, requests: impl IntoIterator<Item = &'a Request>) {
        let Context { partition, generation, server, now, calendar, stream_bytes_max, memory } = *context;
        let name = match memory {
            Memory::Limited => &script.name,
            Memory::Unlimited => &script.settle_name,
        };
        let Self { keys, operations, operation, bytes } = self;
        for buffer in [&mut *keys, operations, bytes] {
            buffer.clear();
        }
        let mut slots = Slots { keys, by_subject: HashMap::new() };
        let mut count = 0;
        let mut push = |operation: &mut Vec<u8>| {
            put_bulk(operations, operation);
            operation.clear();
            count += 1;
        };
        for request in requests {
            let (user, meter) = (&request.user, request.meter);
            let slot = slots.of(Subject::Record(user, meter), || keys::record_of(partition, user, meter));
            let outcome = match request.operation.outcome_key() {
                OutcomeKey::None => 0,
                // Version 0.1.0 has no other meter, and keeps no answer of one.
                OutcomeKey::Idempotency(_) if !meter.is_chat() => {
                    slots.of(Subject::Nothing, || keys::nothing(partition).into_bytes())
                }
                OutcomeKey::Idempotency(kept) => {
                    slots.of(Subject::Request(user, &kept.key), || keys::outcome(partition, user, &kept.key))
                }
                OutcomeKey::Settlement(hold) => slots.of(Subject::Hold(hold), || keys::settlement(partition, hold)),
            };
            let mut answers = || slots.of(Subject::Answers, || keys::answers(partition));
            let prefix = if request.operation.idempotency().is_some() { answers() } else { 0 };
            if let Some(seed) = &request.seed {
                seed.encode(meter, slot, operation);
                push(operation);
            }
            request.operation.encode((user, meter), (slot, outcome, prefix), operation);
            push(operation);
        }
        // The fence precedes the records, the levels and the stream follow them.
        let numkeys = slots.by_subject.len() + 3;
        put_array(bytes, 3 + numkeys + 2 + count);
        put_bulk(bytes, b"FCALL");
        put_bulk(bytes, name.as_bytes());
        put_bulk(bytes, decimal(numkeys).as_slice());
        put_bulk(bytes, keys::fence(partition).as_bytes());
        bytes.extend_from_slice(keys);
        put_bulk(bytes, keys::levels(partition).as_bytes());
        put_bulk(bytes, keys::stream(partition, generation).as_bytes());
        put_bulk(bytes, Fence::new(generation, server).as_bytes());
        put_bulk(bytes, &encode_calendar(generation, now, &calendar.bounds_at(now), stream_bytes_max));
        bytes.extend_from_slice(operations);
    }
}

/// Packs the second argument of every call: the generation and the calendar.
fn encode_calendar(generation: u32, now: DateTime<Utc>, bounds: &Bounds, stream_bytes_max: u64) -> Vec<u8> {
    let mut to = Vec::with_capacity(40);
    to.put_u32(generation);
    to.put_u48(unix_ms(now));
    to.put_u48(stream_bytes_max);
    to.put_u16(bounds.day.number());
    to.put_u48(unix_ms(bounds.day_end));
    to.put_u8(bounds.day_of_month);
    to.put_u24(bounds.month.code(AnchorDay::FIRST));
    to.put_u24(bounds.next_month.code(AnchorDay::FIRST));
    for length in bounds.month_lengths {
        to.put_u8(length);
    }
    to
}

/// What a key refers to.
#[derive(PartialEq, Eq, Hash)]
enum Subject<'a> {
    Record(&'a UserId, MeterCode),
    Request(&'a UserId, &'a IdempotencyKey),
    Answers,
    Nothing,
    Hold(Uuid),
}

/// The keys of a call, without duplicates. A slot is the index of a key, from 1 as in Lua; the fence has slot 1.
struct Slots<'a, 'b> {
    keys: &'b mut Vec<u8>,
    by_subject: HashMap<Subject<'a>, u8>,
}

impl<'a> Slots<'a, '_> {
    fn of(&mut self, subject: Subject<'a>, key: impl FnOnce() -> Vec<u8>) -> u8 {
        let next = u8::try_from(self.by_subject.len() + 2).unwrap_or(u8::MAX);
        *self.by_subject.entry(subject).or_insert_with(|| {
            put_bulk(self.keys, &key());
            next
        })
    }
}

fn decimal(number: usize) -> Vec<u8> {
    let mut digits = Vec::with_capacity(10);
    put_decimal(&mut digits, number);
    digits
}
