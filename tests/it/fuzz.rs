//! Fuzzes the parsers of external input: more than a million inputs, none of which may panic or be misread.
//!
//! Each input is random, or a valid one with changes. A second, simpler implementation here gives the expected result.

use chrono::DateTime;
use quota_gate::{
    domain::{
        ap::Ap,
        calendar::Period,
        hold::Reservation,
        idempotency::IdempotencyKey,
        journal::Content,
        user_id::{SessionId, UserId},
    },
    gate::ReservationSigner,
    store::redis::{Record, decode_entry},
};
use uuid::Uuid;

struct Mangler(fastrand::Rng);

impl Mangler {
    fn new() -> Self {
        Self(fastrand::Rng::with_seed(20_261_123))
    }

    /// Returns random bytes, or `good` with some bytes changed, removed, inserted, cut off or doubled.
    fn mangle(&mut self, good: &[u8]) -> Vec<u8> {
        let random = &mut self.0;
        if random.u8(..8) == 0 {
            return (0..random.usize(..200)).map(|_| random.u8(..)).collect();
        }
        let mut bytes = good.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..=bytes.len());
            match random.u8(..6) {
                0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                4 => bytes.extend_from_within(at..),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        bytes
    }

    fn mangle_text(&mut self, good: &str) -> String {
        String::from_utf8_lossy(&self.mangle(good.as_bytes())).into_owned()
    }
}

#[test]
fn ids_and_keys_parse_exactly_by_their_rules() {
    let mut mangler = Mangler::new();
    for round in 0..250_000 {
        let good = ["alice@example.com:1", "0f8fad5b-d9cb-469f-a165-70867728950e", "会话", "", "{a}"][round % 5];
        let text = mangler.mangle_text(good);
        let fits = |length: usize| (1..=128).contains(&length);
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:@-".contains(c);
        assert_eq!(UserId::parse(&text).is_ok(), fits(text.len()) && text.chars().all(plain), "{text:?}");
        let printable = |c: char| ('!'..='~').contains(&c);
        assert_eq!(IdempotencyKey::parse(&text).is_ok(), fits(text.len()) && text.chars().all(printable), "{text:?}");
        let speakable = fits(text.len()) && !text.chars().any(char::is_control);
        assert_eq!(SessionId::parse(&text).is_ok(), speakable, "{text:?}");
    }
}

#[test]
fn only_reservation_ids_signed_by_this_gate_are_valid() {
    let mut mangler = Mangler::new();
    let signer = ReservationSigner::new(&[1; 32]).unwrap();
    let stranger = ReservationSigner::new(&[2; 32]).unwrap();
    let mut reservation = Reservation {
        hold: Uuid::from_u128(7),
        user: UserId::parse("alice").unwrap(),
        session: SessionId::parse("chat-1").unwrap(),
        ap: Ap::new(5),
        period: Period::from_id(202_611).unwrap(),
        expires_at: DateTime::from_timestamp_millis(1_795_000_000_000).unwrap(),
        generation: 3,
        granted: Ap::ZERO,
        made_at: None,
        meter: quota_gate::domain::meter::MeterCode::CHAT,
    };
    for round in 0..250_000_u32 {
        reservation.ap = Ap::new(round % 1_000 + 1);
        let good = signer.sign(&reservation);
        let bad = mangler.mangle_text(&good);
        if bad != good {
            assert_eq!(signer.read(&bad), None, "{bad}");
        }
        assert_eq!(stranger.read(&good), None);
    }
}

#[test]
fn decoding_any_bytes_as_a_record_does_not_panic() {
    let mut mangler = Mangler::new();
    let mut good = vec![1, 0, 0, 0, 3];
    good.extend(202_611_u32.to_be_bytes()[1..].iter().chain(&[1, 0, 0, 1, 44, 0]));
    good.resize(40, 7);
    good.extend([0, 0, 0, 5, 0, 0, 0, 0, 0, 9]);
    good.extend([9; 29]);
    let mut read = 0;
    for _ in 0..300_000 {
        let bytes = mangler.mangle(&good);
        if let Some(record) = Record::decode(&bytes) {
            read += 1;
            let (format, flags) = (bytes[0] & 7, bytes[0] & !7);
            let length = if bytes.len() == 40 { 0 } else { bytes.len() - 50 };
            assert!(matches!(format, 1 | 2) && flags <= 24, "{bytes:?}");
            assert!(format == 2 || record.holds.len() * 29 == length, "{bytes:?}");
        }
    }
    assert!(read > 1_000, "some changed records are still valid");
}

#[test]
fn stream_entry_is_decoded_or_kept_whole() {
    let mut mangler = Mangler::new();
    let mut good = vec![1, 0, 0, 1, 2, 3, 4];
    good.extend([7; 16]);
    good.extend([1, 1]);
    good.extend(&202_611_u32.to_be_bytes()[1..]);
    good.extend([0, 0, 0, 5, 0, 0, 0, 0]);
    good.extend([7; 16]);
    good.extend([0, 0, 0, 9, 5]);
    good.extend(b"alice\x01s");
    assert!(matches!(decode_entry(good.clone()), Content::Events(events) if events.len() == 1));
    for _ in 0..300_000 {
        let bytes = mangler.mangle(&good);
        match decode_entry(bytes.clone()) {
            Content::Genesis => assert!(bytes.is_empty()),
            Content::Events(events) => {
                assert!(matches!(bytes[0], 1..=3), "{bytes:?}");
                // The header repeats the last event's id. Without it, a truncated entry could be read as a whole one.
                assert_eq!(events.last().map(|event| event.id.as_bytes().as_slice()), Some(&bytes[7..23]));
            }
            Content::Newer { format } => assert!((4..32).contains(&format) && bytes[0] == format),
            Content::Unreadable { bytes: kept, .. } => assert_eq!(kept, bytes),
        }
    }
}
