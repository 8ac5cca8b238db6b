//! Errors of the audit.

use crate::{
    domain::partition::Partition,
    gate::GateError,
    store::{postgres::PostgresError, redis::RedisError},
};

/// Why an audit failed. It is safe to run it again.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Redis did not answer.
    #[error("cannot read records and streams: {0}")]
    Redis(#[from] RedisError),
    /// Postgres did not answer.
    #[error("cannot read the usage log and the totals: {0}")]
    Postgres(#[from] PostgresError),
    /// A partition did not open.
    #[error("partition {0} is not open: no gate is running, or it is being opened")]
    Closed(Partition),
    /// Another repair is running. Two would count a difference twice.
    #[error("another repair is running: wait until it has ended, then verify again")]
    Repairing,
    /// A partition could not be reopened.
    #[error("cannot open the partition: {0}")]
    Opening(#[from] GateError),
}
