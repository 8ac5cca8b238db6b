//! The reservation id that clients hold: signed, and sufficient to settle the hold.
//!
//! `base64url(payload ‖ tag)`: the fields of [`Reservation`], and the first 16 bytes of their HMAC-SHA-256. So a commit
//! works even after Redis lost the hold, and no client can invent a hold, enlarge one, or settle another user's.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::{
    InvalidInput,
    ap::Ap,
    calendar::{AnchorDay, Period},
    clock::instant,
    hold::Reservation,
    meter::MeterCode,
    user_id::{SessionId, UserId},
};
use crate::store::redis::packed::{PutBytes, Reader};

const FORMAT: u8 = 1;
/// Format of an id with blocks, as in usage events (decision 0022), after the fields of format 1: for a user with
/// windows or grants, or on another meter than the chat.
const EXTENDED_FORMAT: u8 = 2;
const END_OF_BLOCKS: u8 = 0;
/// When the hold was made.
const BEGUN: u8 = 2;
/// What the plan is to pay, and no parts: which grants pay is decided by the commit.
const GRANTS: u8 = 4;
const METER: u8 = 5;
const TAG_BYTES: usize = 16;
/// Maximum length of an id: two ids of 128 bytes, the numbers and the tag, in base64.
const TEXT_BYTES_MAX: usize = 512;

/// Signs and reads reservation ids.
#[derive(Clone)]
pub struct ReservationSigner(Hmac<Sha256>);

impl ReservationSigner {
    /// Minimum length of the secret. A shorter one could be guessed.
    pub const SECRET_BYTES_MIN: usize = 32;

    /// Creates a signer with this secret, which all gates of an installation share.
    ///
    /// # Errors
    /// If the secret is shorter than 32 bytes.
    pub fn new(secret: &[u8]) -> Result<Self, InvalidInput> {
        if secret.len() < Self::SECRET_BYTES_MIN {
            return Err(InvalidInput::new("reservation secret", "must have at least 32 bytes"));
        }
        Hmac::new_from_slice(secret)
            .map(Self)
            .map_err(|error| InvalidInput::new("reservation secret", error.to_string()))
    }

    /// Returns the id of a reservation.
    #[must_use]
    pub fn sign(&self, reservation: &Reservation) -> String {
        let mut bytes = Vec::with_capacity(192);
        let is_extended =
            reservation.granted > Ap::ZERO || reservation.made_at.is_some() || !reservation.meter.is_chat();
        bytes.put_u8(if is_extended { EXTENDED_FORMAT } else { FORMAT });
        bytes.put_uuid(reservation.hold);
        bytes.put_u32(reservation.ap.get());
        bytes.put_u24(reservation.period.code(AnchorDay::FIRST));
        bytes.put_u48(u64::try_from(reservation.expires_at.timestamp_millis()).unwrap_or_default());
        bytes.put_u32(reservation.generation);
        bytes.put_id(reservation.user.as_str(), reservation.user.as_uuid());
        bytes.put_id(reservation.session.as_str(), reservation.session.as_uuid());
        if is_extended {
            put_blocks(reservation, &mut bytes);
        }
        let tag = self.0.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the reservation of an id, or none if this gate has not signed it.
    #[must_use]
    pub fn read(&self, id: &str) -> Option<Reservation> {
        if id.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
        let (payload, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        self.0.clone().chain_update(payload).verify_truncated_left(tag).ok()?;
        decode(payload)
    }

    /// Returns the reservation of an id that was verified on arrival. The secret may have changed since.
    pub(in crate::gate) fn read_verified(id: &str) -> Option<Reservation> {
        let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
        decode(bytes.get(..bytes.len().checked_sub(TAG_BYTES)?)?)
    }
}

fn put_blocks(reservation: &Reservation, bytes: &mut Vec<u8>) {
    if let Some(made_at) = reservation.made_at {
        bytes.put_u8(BEGUN);
        bytes.put_u48(u64::try_from(made_at.timestamp_millis()).unwrap_or_default());
    }
    if reservation.granted > Ap::ZERO {
        bytes.put_u8(GRANTS);
        bytes.put_u32(reservation.ap.saturating_sub(reservation.granted).get());
        bytes.put_u8(0);
    }
    if !reservation.meter.is_chat() {
        bytes.put_u8(METER);
        bytes.put_u8(reservation.meter.get());
    }
    bytes.put_u8(END_OF_BLOCKS);
}

fn decode(payload: &[u8]) -> Option<Reservation> {
    let mut reader = Reader::new(payload);
    let format = reader.u8()?;
    if !matches!(format, FORMAT | EXTENDED_FORMAT) {
        return None;
    }
    let mut reservation = Reservation {
        hold: reader.uuid()?,
        ap: Ap::price(reader.u32()?.into()).ok()?,
        period: Period::from_code(reader.u24()?).ok()?.0,
        expires_at: instant(i64::try_from(reader.u48()?).ok()?),
        generation: reader.u32()?,
        user: UserId::parse(&reader.id()?).ok()?,
        session: SessionId::parse(&reader.id()?).ok()?,
        granted: Ap::ZERO,
        made_at: None,
        meter: MeterCode::CHAT,
    };
    if format == EXTENDED_FORMAT {
        read_blocks(&mut reader, &mut reservation)?;
    }
    reader.is_empty().then_some(reservation)
}

fn read_blocks(reader: &mut Reader<'_>, reservation: &mut Reservation) -> Option<()> {
    loop {
        match reader.u8()? {
            END_OF_BLOCKS => return Some(()),
            BEGUN => reservation.made_at = Some(instant(i64::try_from(reader.u48()?).ok()?)),
            GRANTS => {
                reservation.granted = reservation.ap.saturating_sub(Ap::new(reader.u32()?));
                if reader.u8()? != 0 {
                    return None;
                }
            }
            METER => reservation.meter = MeterCode::new(reader.u8()?),
            _ => return None,
        }
    }
}

impl std::fmt::Debug for ReservationSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReservationSigner(***)")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn reservation() -> Reservation {
        Reservation {
            hold: Uuid::from_u128(7),
            user: UserId::parse("alice").unwrap(),
            session: SessionId::parse("会话").unwrap(),
            ap: Ap::new(5),
            period: Period::from_id(202_611).unwrap(),
            expires_at: instant(1_795_000_000_000),
            generation: 3,
            granted: Ap::ZERO,
            made_at: None,
            meter: MeterCode::CHAT,
        }
    }

    #[test]
    fn an_id_contains_its_reservation() {
        let signer = ReservationSigner::new(&[1; 32]).unwrap();
        assert_eq!(signer.read(&signer.sign(&reservation())), Some(reservation()));
    }

    #[test]
    fn an_id_says_what_grants_are_to_pay_and_when_the_hold_was_made() {
        let signer = ReservationSigner::new(&[1; 32]).unwrap();
        let extended = Reservation { granted: Ap::new(2), made_at: Some(instant(1_794_999_000_000)), ..reservation() };
        for reservation in [
            extended.clone(),
            Reservation { granted: Ap::ZERO, ..extended.clone() },
            Reservation { made_at: None, ..extended.clone() },
            Reservation { meter: MeterCode::new(7), ..extended.clone() },
            Reservation { meter: MeterCode::new(255), ..reservation() },
        ] {
            assert_eq!(signer.read(&signer.sign(&reservation)), Some(reservation));
        }
        let bytes = URL_SAFE_NO_PAD.decode(signer.sign(&extended)).unwrap();
        let plain = URL_SAFE_NO_PAD.decode(signer.sign(&reservation())).unwrap();
        assert_eq!((plain[0], bytes[0]), (1, 2));
        let blocks = [2, 1, 0xa1, 0xee, 0x47, 0x1b, 0xc0, 4, 0, 0, 0, 3, 0, 0];
        assert_eq!(bytes[plain.len() - TAG_BYTES..bytes.len() - TAG_BYTES], blocks);
    }

    #[test]
    fn an_id_with_any_byte_changed_is_refused() {
        let signer = ReservationSigner::new(&[1; 32]).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(signer.sign(&reservation())).unwrap();
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert_eq!(signer.read(&URL_SAFE_NO_PAD.encode(forged)), None, "byte {at}");
        }
        for id in ["", "AAAA", "not base64!", &"A".repeat(600)] {
            assert_eq!(signer.read(id), None, "{id}");
        }
    }

    #[test]
    fn an_id_signed_with_another_secret_is_refused() {
        let id = ReservationSigner::new(&[1; 32]).unwrap().sign(&reservation());
        assert_eq!(ReservationSigner::new(&[2; 32]).unwrap().read(&id), None);
        assert_eq!(ReservationSigner::read_verified(&id), Some(reservation()), "a verified id can be read");
        assert!(ReservationSigner::new(&[1; 31]).is_err());
    }
}
