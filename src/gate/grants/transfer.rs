//! Transfers AP of a user's grants to another user: a charge of the sender's grants, whose flush makes the receiver's.
//!
//! Redis decides and journals the charge in one step. If Redis loses it, the sender keeps the AP and the receiver gets
//! none. So a transfer is only accepted until it is in the log. The request has a key and can be repeated.

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::gate::{
    Gate, GateError, Inner, Transfer,
    error::unexpected,
    message::idempotency::{Logged, OTHER_REQUEST, Route},
};
use crate::{
    domain::{InvalidInput, meter::MeterCode},
    store::{
        postgres::GrantRow,
        redis::{Operation, ReplyStatus},
    },
};

/// A transfer that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// Id of the transfer.
    pub id: Uuid,
    /// How far it is.
    pub state: TransferState,
    /// Whether it had been accepted before, by the same request.
    pub replayed: bool,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferState {
    /// Redis has it. A loss of Redis data may undo it, for both users.
    Accepted,
    /// Postgres has it.
    Logged,
}

impl Gate {
    /// Transfers AP of the sender's live grants, as far as no hold needs them. The receiver can use them as soon as
    /// they are in the log and the grant sync has numbered them.
    ///
    /// # Errors
    /// [`GateError::NotTransferable`] if the grants do not cover it, [`GateError::Blocked`] if the sender is blocked,
    /// [`GateError::Invalid`] if the receiver was forgotten, [`GateError::Mismatch`] if the key was used for another
    /// request, [`GateError::Unavailable`] or [`GateError::RedisAway`] if nothing was transferred,
    /// [`GateError::Indeterminate`] if the answer was lost.
    pub async fn transfer(&self, request: &Transfer) -> Result<Transferred, GateError> {
        let gate = &self.0;
        let sender = &request.sender;
        if gate.postgres.is_forgotten(&request.receipt.receiver).await? {
            return Err(InvalidInput::new("toUserUuid", "must be a user who was not forgotten").into());
        }
        let account = (sender, self.1);
        let event = gate.id_under_key(Route::Transfer, account, &request.key);
        let operation = gate.transfer_operation(event, request, self.1);
        let deadline = Instant::now() + gate.deadline;
        let answer = loop {
            let lookup = self.logged_earlier(Route::Transfer, event, sender, &request.key);
            let generation = match timeout_at(deadline, lookup).await.map_err(|_| GateError::slow())?? {
                Logged::Row(row) => return self.logged_transfer(row.event, request).await,
                Logged::NotBefore(generation) => generation,
            };
            if let Some(answer) = gate.try_call(Some(generation), account, &operation, deadline).await? {
                break answer;
            }
        };
        match answer.status {
            ReplyStatus::Ok if answer.replayed => {
                // The first answer may have been given in another epoch of the key.
                let is_logged = !gate.postgres.grants_of_transfer(answer.id).await?.is_empty();
                let state = if is_logged { TransferState::Logged } else { TransferState::Accepted };
                Ok(Transferred { id: answer.id, state, replayed: true })
            }
            ReplyStatus::Ok => Ok(Transferred { id: event, state: TransferState::Accepted, replayed: false }),
            ReplyStatus::Denied => Err(GateError::NotTransferable(answer.limits.granted_free)),
            ReplyStatus::Mismatch => Err(GateError::Mismatch(OTHER_REQUEST)),
            ReplyStatus::Blocked => Err(GateError::Blocked),
            ReplyStatus::Shed => Err(GateError::shed()),
            other => Err(unexpected("transfer", other)),
        }
    }

    /// Returns the grants that a transfer made, in the order of its parts. None unless the transfer is in the log, and
    /// of the gate's meter.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if Postgres is unavailable.
    pub async fn grants_of_transfer(&self, id: Uuid) -> Result<Vec<GrantRow>, GateError> {
        let mut grants = self.0.postgres.grants_of_transfer(id).await?;
        grants.retain(|grant| grant.meter == self.1);
        Ok(grants)
    }

    /// The answer to a request whose transfer is in the log, after Redis has lost the first answer.
    async fn logged_transfer(&self, id: Uuid, request: &Transfer) -> Result<Transferred, GateError> {
        let grants = self.0.postgres.grants_of_transfer(id).await?;
        let ap: u64 = grants.iter().map(|grant| grant.granted).sum();
        let receipt = &request.receipt;
        let same = ap == u64::from(request.ap.get())
            && grants.iter().all(|grant| grant.user == receipt.receiver && grant.reason == receipt.author.reason);
        if !same {
            return Err(GateError::Mismatch(OTHER_REQUEST));
        }
        Ok(Transferred { id, state: TransferState::Logged, replayed: true })
    }
}

impl Inner {
    fn transfer_operation(&self, event: Uuid, request: &Transfer, meter: MeterCode) -> Operation {
        let Transfer { sender, ap, receipt, key } = request;
        let (amount, receiver) = (ap.get().to_be_bytes(), receipt.receiver.as_str().as_bytes());
        let parts = [receiver, amount.as_slice(), receipt.author.reason.as_bytes()];
        let idempotency = self.idempotency((sender, meter), key.clone(), "transfer", &parts);
        Operation::Transfer { ap: *ap, event, receipt: Box::new(receipt.clone()), idempotency }
    }
}
