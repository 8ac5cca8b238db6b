//! Why an audit failed. It may be run again.

use crate::{
    domain::partition::Partition,
    gate::GateError,
    store::{postgres::PostgresError, redis::RedisError},
};

/// Why an audit failed. It changes nothing that a second run would not find again.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Redis did not answer.
    #[error("reading records and streams: {0}")]
    Redis(#[from] RedisError),
    /// Postgres did not answer.
    #[error("reading the usage log and the totals: {0}")]
    Postgres(#[from] PostgresError),
    /// A partition did not become open.
    #[error("partition {0} is not open: no gate is running, or it is being opened")]
    Closed(Partition),
    /// Two repairs would count the same difference twice.
    #[error("another repair is running: wait until it has ended, then verify again")]
    Repairing,
    /// A partition could not be opened again.
    #[error("opening the partition: {0}")]
    Opening(#[from] GateError),
}
