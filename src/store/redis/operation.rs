//! Input of the script: operations and their packed arguments. Twins: the files of `lua/operation/`.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    event_blocks,
    idempotency::Idempotency,
    packed::PutBytes,
    seed::{Seed, UserLevel},
    tails::{encode_grants, unix_ms},
};
use crate::domain::{
    ap::Ap,
    calendar::{AnchorDay, Day},
    grant::Grants,
    hold::{Reservation, Ttl},
    meter::MeterCode,
    model_name::ModelName,
    transfer::Receipt,
    usage::Tokens,
    user_id::{SessionId, UserId},
};

/// Conversation of a transfer, which belongs to none.
const TRANSFER_SESSION: &str = "transfer";

/// One operation on one user.
#[derive(Debug, Clone)]
pub struct Request {
    /// The user.
    pub user: UserId,
    /// The meter whose record the operation is on.
    pub meter: MeterCode,
    /// The operation.
    pub operation: Operation,
    /// State to create the record from, if Redis has none.
    pub seed: Option<Seed>,
    /// The only generation in which the request is valid: data from Postgres was read in it.
    pub generation: Option<u32>,
}

impl Request {
    /// Whether the request may run while Redis' memory is full: it settles what was admitted before, or takes no
    /// memory.
    pub(super) const fn may_exceed_memory(&self) -> bool {
        self.operation.settles()
            || self.seed.is_none() && matches!(self.operation, Operation::Peek | Operation::SetLevel(_))
    }
}

/// An operation on one user's record.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Check and charge in one step.
    Consume {
        /// AP to charge.
        cost: Ap,
        /// Id of the usage event.
        event: Uuid,
        /// The conversation.
        session: SessionId,
        /// Tokens that the model counted.
        tokens: Tokens,
        /// The model that wrote the answer.
        model: Option<ModelName>,
        /// Keep the answer for repeats of the request.
        idempotency: Option<Idempotency>,
    },
    /// Hold AP.
    Reserve {
        /// AP to hold.
        cost: Ap,
        /// Duration of the hold.
        ttl: Ttl,
        /// Id of the hold.
        hold: Uuid,
        /// Keep the answer for repeats of the request.
        idempotency: Option<Idempotency>,
    },
    /// Keep a hold alive.
    Extend {
        /// The hold.
        hold: Uuid,
        /// Duration from now.
        ttl: Ttl,
    },
    /// Charge what was generated.
    Commit {
        /// The hold.
        reservation: Reservation,
        /// AP to charge.
        ap: Ap,
        /// Tokens that the model counted.
        tokens: Tokens,
        /// The model that wrote the answer.
        model: Option<ModelName>,
        /// Day of the hold's expiry. A hold that was to outlive its period covers its AP: no other message of the
        /// period could use them.
        expiry_day: Day,
        /// Whether Postgres has no settlement of this hold, read in the generation that the request names.
        adopt: bool,
        /// When Postgres accepted the commit while Redis was unavailable. The commit counts as made then.
        accepted_at: Option<DateTime<Utc>>,
        /// Recognize repeats of the message, which was allowed while Redis was unavailable.
        idempotency: Option<Idempotency>,
    },
    /// Give the AP of a hold back.
    Release {
        /// The hold.
        reservation: Reservation,
        /// As for a commit.
        adopt: bool,
    },
    /// Give AP of grants to another user.
    Transfer {
        /// AP to transfer.
        ap: Ap,
        /// Id of the usage event.
        event: Uuid,
        /// Who receives them.
        receipt: Box<Receipt>,
        /// Keep the answer for repeats of the request.
        idempotency: Idempotency,
    },
    /// Read the record.
    Peek,
    /// Take over level, own quota and block from Postgres.
    SetLevel(UserLevel),
    /// Take over the list of grants from Postgres, unless the record knows it or a newer one.
    BringGrants(Grants),
}

/// Key of an operation's outcome.
pub(super) enum OutcomeKey<'a> {
    None,
    Idempotency(&'a Idempotency),
    Settlement(Uuid),
}

impl Operation {
    /// How repeats of the request are recognized, if it has a key.
    pub(super) const fn idempotency(&self) -> Option<&Idempotency> {
        match self {
            Self::Consume { idempotency, .. }
            | Self::Reserve { idempotency, .. }
            | Self::Commit { idempotency, .. } => idempotency.as_ref(),
            Self::Transfer { idempotency, .. } => Some(idempotency),
            _ => None,
        }
    }

    pub(super) fn outcome_key(&self) -> OutcomeKey<'_> {
        match self {
            Self::Consume { .. } | Self::Reserve { .. } | Self::Transfer { .. } => {
                self.idempotency().map_or(OutcomeKey::None, OutcomeKey::Idempotency)
            }
            Self::Extend { hold, .. } => OutcomeKey::Settlement(*hold),
            Self::Commit { reservation, .. } | Self::Release { reservation, .. } => {
                OutcomeKey::Settlement(reservation.hold)
            }
            Self::Peek | Self::SetLevel(_) | Self::BringGrants(_) => OutcomeKey::None,
        }
    }

    /// Whether the operation settles a hold.
    const fn settles(&self) -> bool {
        matches!(self, Self::Extend { .. } | Self::Commit { .. } | Self::Release { .. })
    }

    const fn code(&self) -> u8 {
        match self {
            Self::Consume { .. } => 2,
            Self::Reserve { .. } => 3,
            Self::Extend { .. } => 4,
            Self::Commit { .. } => 5,
            Self::Release { .. } => 6,
            Self::Peek => 7,
            Self::SetLevel(_) => 8,
            Self::BringGrants(_) => 9,
            Self::Transfer { .. } => 10,
        }
    }

    /// Whether the tail of the usage event ends in blocks.
    fn has_blocks(&self, meter: MeterCode) -> bool {
        match self {
            Self::Consume { tokens, .. } | Self::Commit { tokens, .. } => tokens.kinds().is_some() || !meter.is_chat(),
            Self::Transfer { .. } => true,
            _ => false,
        }
    }

    /// Packs the operation. `slot`, `outcome` and `prefix` are indexes of the call's keys; 0 means none.
    pub(super) fn encode(
        &self,
        (user, meter): (&UserId, MeterCode),
        (slot, outcome, prefix): (u8, u8, u8),
        to: &mut Vec<u8>,
    ) {
        let extended = if self.has_blocks(meter) { event_blocks::EXTENDED } else { 0 };
        put_head((self.code() + extended, meter), (slot, outcome), to);
        match self {
            Self::Consume { cost, event, session, tokens, model, idempotency } => {
                to.put_u32(cost.get());
                if let Some(kept) = idempotency {
                    kept.encode(prefix, to);
                }
                encode_tail(*event, (*tokens, meter), (user, session), model.as_ref(), to);
            }
            Self::Reserve { cost, ttl, hold, idempotency } => {
                to.put_u32(cost.get());
                to.put_u32(ttl.ms());
                to.put_uuid(*hold);
                if let Some(kept) = idempotency {
                    kept.encode(prefix, to);
                }
            }
            Self::Extend { hold, ttl } => {
                to.put_uuid(*hold);
                to.put_u32(ttl.ms());
            }
            Self::Commit { reservation, ap, tokens, model, expiry_day, adopt, accepted_at, idempotency } => {
                to.put_u32(ap.get());
                to.put_u32(reservation.ap.get());
                to.put_u32(reservation.granted.get());
                to.put_u48(reservation.made_at.map_or(0, unix_ms));
                to.put_u24(reservation.period.code(AnchorDay::FIRST));
                to.put_u48(unix_ms(reservation.expires_at));
                to.put_u16(expiry_day.number());
                to.put_u32(reservation.generation);
                to.put_u8((*adopt).into());
                to.put_u48(accepted_at.map_or(0, unix_ms));
                to.put_u8(idempotency.is_some().into());
                if let Some(kept) = idempotency {
                    kept.encode(prefix, to);
                }
                let of_user = (user, &reservation.session);
                encode_tail(reservation.hold, (*tokens, meter), of_user, model.as_ref(), to);
            }
            Self::Release { reservation, adopt } => {
                to.put_uuid(reservation.hold);
                to.put_u48(unix_ms(reservation.expires_at));
                to.put_u32(reservation.generation);
                to.put_u8((*adopt).into());
            }
            Self::Transfer { ap, event, receipt, idempotency } => {
                to.put_u32(ap.get());
                idempotency.encode(prefix, to);
                to.put_uuid(*event);
                to.put_u32(0); // no tokens
                to.put_id(user.as_str(), user.as_uuid());
                to.put_text(TRANSFER_SESSION);
                to.put_text(""); // no model
                event_blocks::encode(None, meter, to);
                event_blocks::encode_receiver(receipt, to);
            }
            Self::Peek => {}
            Self::SetLevel(level) => level.encode(to),
            Self::BringGrants(grants) => encode_grants(grants, to),
        }
    }
}

/// Added to the code of an operation on another meter than the chat.
const METERED: u8 = 64;

/// Packs the code, the meter unless it is that of the chat, and the slots of record and outcome.
pub(super) fn put_head((code, meter): (u8, MeterCode), (slot, outcome): (u8, u8), to: &mut Vec<u8>) {
    if meter.is_chat() {
        to.extend_from_slice(&[code, slot, outcome]);
    } else {
        to.extend_from_slice(&[code + METERED, slot, outcome, meter.get()]);
    }
}

/// Packs the tail of a usage event, which the script copies into the stream unchanged.
fn encode_tail(
    id: Uuid,
    (tokens, meter): (Tokens, MeterCode),
    (user, session): (&UserId, &SessionId),
    model: Option<&ModelName>,
    to: &mut Vec<u8>,
) {
    to.put_uuid(id);
    to.put_u32(tokens.get());
    to.put_id(user.as_str(), user.as_uuid());
    to.put_id(session.as_str(), session.as_uuid());
    to.put_text(ModelName::column(model));
    // The script appends its own blocks and the end.
    event_blocks::encode(tokens.kinds(), meter, to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::token_kinds::TokenKinds;

    #[test]
    fn a_consume_is_packed_into_these_exact_bytes() {
        let mut bytes = Vec::new();
        let operation = Operation::Consume {
            cost: Ap::new(7),
            event: Uuid::from_bytes([0xaa; 16]),
            session: SessionId::parse("s1").unwrap(),
            tokens: Tokens::new(300).unwrap(),
            model: Some(ModelName::parse("m").unwrap()),
            idempotency: None,
        };
        let bob = UserId::parse("bob").unwrap();
        operation.encode((&bob, MeterCode::CHAT), (2, 0, 0), &mut bytes);
        let mut rest = vec![0, 0, 0, 7];
        rest.extend([0xaa; 16]);
        rest.extend([0, 0, 1, 44, 3, b'b', b'o', b'b', 2, b's', b'1', 1, b'm']);
        assert_eq!(bytes, [&[2, 2, 0][..], &rest].concat());
        let mut metered = Vec::new();
        operation.encode((&bob, MeterCode::new(9)), (2, 0, 0), &mut metered);
        assert_eq!(metered, [&[128 + 64 + 2, 2, 0, 9][..], &rest, &[5, 9]].concat());
    }

    #[test]
    fn kinds_of_tokens_follow_the_model_of_an_extended_operation() {
        let tail = |tokens: Tokens| {
            let mut bytes = Vec::new();
            let session = SessionId::parse("s1").unwrap();
            let (event, cost) = (Uuid::from_bytes([0xaa; 16]), Ap::new(7));
            let operation = Operation::Consume { cost, event, session, tokens, model: None, idempotency: None };
            operation.encode((&UserId::parse("bob").unwrap(), MeterCode::CHAT), (2, 0, 0), &mut bytes);
            bytes
        };
        let plain = tail(Tokens::new(300).unwrap());
        let kinds = TokenKinds::new(290, 256, 10).unwrap();
        let extended = tail(Tokens::of_kinds(kinds));
        assert_eq!((plain[0], extended[0]), (2, 130));
        assert_eq!(extended[1..plain.len()], plain[1..], "the rest is unchanged");
        assert_eq!(extended[plain.len()..], [1, 0, 0, 1, 34, 0, 0, 1, 0, 0, 0, 0, 10, 0]);
        let estimated = tail(Tokens::of_kinds(kinds.estimated()));
        assert_eq!((estimated.len(), estimated.last()), (extended.len(), Some(&1)));
    }
}
