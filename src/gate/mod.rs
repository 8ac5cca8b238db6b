//! The use cases of the gate, one file each, as methods of [`Gate`].

pub mod error;
pub mod request;

use std::sync::Arc;

use crate::domain::{
    calendar::Calendar,
    decision::{Charged, Committed, Decision, LevelChanged, Released, Reserved},
    hold::Ttl,
    level::Levels,
    quota::Quota,
    user_id::UserId,
};

pub use error::GateError;
pub use request::{ChangeLevel, Commit, Consume, Reserve};

/// Decides whether users may send messages. A cheap clone; usable without HTTP.
#[derive(Clone)]
pub struct Gate(#[expect(dead_code, reason = "skeleton")] Arc<()>);

#[expect(
    clippy::todo,
    clippy::unused_async,
    unused_variables,
    missing_docs,
    clippy::missing_errors_doc,
    reason = "skeleton"
)]
impl Gate {
    pub async fn consume(&self, request: Consume) -> Result<Decision<Charged>, GateError> {
        todo!()
    }
    pub async fn reserve(&self, request: Reserve) -> Result<Decision<Reserved>, GateError> {
        todo!()
    }
    pub async fn extend(&self, reservation_id: &str, ttl: Ttl) -> Result<Reserved, GateError> {
        todo!()
    }
    pub async fn commit(&self, reservation_id: &str, commit: Commit) -> Result<Committed, GateError> {
        todo!()
    }
    pub async fn release(&self, reservation_id: &str) -> Result<Released, GateError> {
        todo!()
    }
    pub async fn quota(&self, user: &UserId) -> Result<Quota, GateError> {
        todo!()
    }
    pub async fn change_level(&self, request: ChangeLevel) -> Result<LevelChanged, GateError> {
        todo!()
    }
    /// The signed token that names a reservation to clients.
    pub fn reservation_id(&self, reserved: &Reserved) -> String {
        todo!()
    }
    pub fn levels(&self) -> Levels {
        todo!()
    }
    pub fn calendar(&self) -> Calendar {
        todo!()
    }
}
