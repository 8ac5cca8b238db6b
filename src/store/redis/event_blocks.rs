//! Blocks of extended usage events: each a tag and its fields, after the model (decision 0022). Twin:
//! `lua/operation/journal.lua`.
//!
//! The gate's blocks are part of the tail that it packs. The script appends its own blocks, and the tag that ends them.

use chrono::{DateTime, Utc};

use super::{
    packed::{PutBytes, Reader},
    tails,
};
use crate::domain::{
    ap::Ap,
    author::Author,
    grant::{GrantNumber, GrantPart},
    meter::MeterCode,
    token_kinds::TokenKinds,
    transfer::{PartTerms, Receipt},
    user_id::UserId,
    window::WindowCount,
};

/// Added to the kind of an event, and to the code of an operation whose tail has blocks.
pub(super) const EXTENDED: u8 = 128;
/// Tag after the last block.
const END: u8 = 0;
const TOKEN_KINDS: u8 = 1;
const BEGUN: u8 = 2;
const WINDOWS: u8 = 3;
const GRANTS: u8 = 4;
const METER: u8 = 5;
const RECEIVER: u8 = 6;
const TERMS: u8 = 7;
/// Flag of [`TOKEN_KINDS`]: the gate has estimated them.
const ESTIMATED: u8 = 1;

/// Blocks of one event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct EventBlocks {
    pub(super) token_kinds: Option<TokenKinds>,
    /// When the hold was made that was committed.
    pub(super) begun_at: Option<DateTime<Utc>>,
    /// What the charge counted in windows.
    pub(super) windows: Option<Vec<WindowCount>>,
    /// AP that the plan paid, and what grants paid.
    pub(super) parts: Option<(Ap, Vec<GrantPart>)>,
    /// The meter, if it is not that of the chat.
    pub(super) meter: Option<MeterCode>,
    /// Who receives the parts of a transfer, and who transferred them.
    pub(super) receiver: Option<(UserId, Author)>,
    /// Terms of each part of a transfer.
    pub(super) terms: Option<Vec<PartTerms>>,
}

/// Packs the gate's blocks.
pub(super) fn encode(token_kinds: Option<TokenKinds>, meter: MeterCode, to: &mut Vec<u8>) {
    if !meter.is_chat() {
        to.put_u8(METER);
        to.put_u8(meter.get());
    }
    if let Some(kinds) = token_kinds {
        to.put_u8(TOKEN_KINDS);
        to.put_u32(kinds.input());
        to.put_u32(kinds.cached_input());
        to.put_u32(kinds.output());
        to.put_u8(if kinds.is_estimated() { ESTIMATED } else { 0 });
    }
}

/// Packs the gate's block of a transfer.
pub(super) fn encode_receiver(receipt: &Receipt, to: &mut Vec<u8>) {
    to.put_u8(RECEIVER);
    to.put_id(receipt.receiver.as_str(), receipt.receiver.as_uuid());
    to.put_text(&receipt.author.by);
    to.put_text(&receipt.author.reason);
}

/// Reads blocks up to their end. Returns none if one is malformed, unknown, or there twice.
pub(super) fn decode(reader: &mut Reader<'_>) -> Option<EventBlocks> {
    let mut blocks = EventBlocks::default();
    loop {
        match reader.u8()? {
            END => return Some(blocks),
            TOKEN_KINDS => set(&mut blocks.token_kinds, token_kinds(reader)?)?,
            BEGUN => set(&mut blocks.begun_at, tails::time(reader.u48()?)?)?,
            WINDOWS => set(&mut blocks.windows, windows(reader)?)?,
            GRANTS => set(&mut blocks.parts, parts(reader)?)?,
            METER => set(&mut blocks.meter, Some(MeterCode::new(reader.u8()?)).filter(|code| !code.is_chat())?)?,
            RECEIVER => set(&mut blocks.receiver, receiver(reader)?)?,
            TERMS => set(&mut blocks.terms, terms(reader)?)?,
            _ => return None,
        }
    }
}

fn token_kinds(reader: &mut Reader<'_>) -> Option<TokenKinds> {
    let kinds = TokenKinds::new(reader.u32()?, reader.u32()?, reader.u32()?).ok()?;
    match reader.u8()? {
        0 => Some(kinds),
        ESTIMATED => Some(kinds.estimated()),
        _ => None,
    }
}

fn windows(reader: &mut Reader<'_>) -> Option<Vec<WindowCount>> {
    let count = reader.u8()?;
    let window = |reader: &mut Reader<'_>| {
        Some(WindowCount { key: tails::key(reader)?, start: tails::time(reader.u48()?)?, counted: reader.u32()? })
    };
    (0..count).map(|_| window(reader)).collect()
}

fn parts(reader: &mut Reader<'_>) -> Option<(Ap, Vec<GrantPart>)> {
    let (plan, count) = (Ap::new(reader.u32()?), reader.u8()?);
    let part = |reader: &mut Reader<'_>| {
        Some(GrantPart { number: GrantNumber::new(reader.u48()?)?, ap: Ap::new(reader.u32()?) })
    };
    Some((plan, (0..count).map(|_| part(reader)).collect::<Option<_>>()?))
}

fn receiver(reader: &mut Reader<'_>) -> Option<(UserId, Author)> {
    let receiver = UserId::parse(&reader.id()?).ok()?;
    Some((receiver, Author { by: reader.text()?.to_owned(), reason: reader.text()?.to_owned() }))
}

fn terms(reader: &mut Reader<'_>) -> Option<Vec<PartTerms>> {
    let count = reader.u8()?;
    let term = |reader: &mut Reader<'_>| {
        Some(PartTerms { expires_at: tails::optional_time(reader.u48()?)?, priority: reader.u8()? })
    };
    (0..count).map(|_| term(reader)).collect()
}

impl EventBlocks {
    /// The receipt of a transfer of `parts`. The inner value is none for another charge; the outer one is none if the
    /// blocks do not fit together.
    #[expect(clippy::option_option, reason = "blocks that do not fit differ from a charge that is no transfer")]
    pub(super) fn receipt(&mut self, is_transfer: bool) -> Option<Option<Box<Receipt>>> {
        let parts = self.parts.as_ref().map_or(0, |(_, parts)| parts.len());
        match (is_transfer, self.receiver.take(), self.terms.take()) {
            (true, Some((receiver, author)), Some(terms)) if parts > 0 && terms.len() == parts => {
                Some(Some(Box::new(Receipt { receiver, author, terms })))
            }
            (false, None, None) => Some(None),
            _ => None,
        }
    }
}

/// Sets a block that was not there before.
fn set<T>(block: &mut Option<T>, to: T) -> Option<()> {
    block.replace(to).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        clock::instant,
        window::{WindowKey, WindowUnit},
    };

    fn packed(kinds: TokenKinds) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(Some(kinds), MeterCode::CHAT, &mut bytes);
        bytes
    }

    #[test]
    fn token_kinds_are_packed_into_these_exact_bytes_and_read_back() {
        let kinds = TokenKinds::new(258, 3, 70_000).unwrap();
        for (kinds, flags) in [(kinds, 0), (kinds.estimated(), 1)] {
            let mut bytes = packed(kinds);
            assert_eq!(bytes, [1, 0, 0, 1, 2, 0, 0, 0, 3, 0, 1, 0x11, 0x70, flags]);
            bytes.extend([END, 77]);
            let mut reader = Reader::new(&bytes);
            assert_eq!(decode(&mut reader), Some(EventBlocks { token_kinds: Some(kinds), ..EventBlocks::default() }));
            assert_eq!(reader.u8(), Some(77), "nothing after the end is read");
        }
        let mut none = Vec::new();
        encode(None, MeterCode::CHAT, &mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn a_meter_is_packed_into_two_bytes_and_chat_into_none() {
        let mut bytes = Vec::new();
        encode(None, MeterCode::new(7), &mut bytes);
        bytes.push(END);
        assert_eq!(bytes, [METER, 7, END]);
        let meter = |bytes: &[u8]| decode(&mut Reader::new(bytes)).map(|blocks| blocks.meter);
        assert_eq!(meter(&bytes), Some(Some(MeterCode::new(7))));
        assert_eq!(meter(&[METER, 0, END]), None, "chat is not named");
    }

    #[test]
    fn blocks_of_the_script_are_read_from_these_exact_bytes() {
        let mut bytes = vec![BEGUN, 0, 0, 0, 0, 1, 0];
        bytes.extend([WINDOWS, 1, 1, 44, 2, 0, 0, 0, 0, 0, 9, 0, 0, 0, 7]);
        bytes.extend([GRANTS, 0, 0, 0, 5, 1, 0, 0, 0, 0, 0, 6, 0, 0, 0, 3, END]);
        let key = WindowKey::new(300, WindowUnit::Requests).unwrap();
        let expected = EventBlocks {
            begun_at: Some(instant(256)),
            windows: Some(vec![WindowCount { key, start: instant(9), counted: 7 }]),
            parts: Some((Ap::new(5), vec![GrantPart { number: GrantNumber::new(6).unwrap(), ap: Ap::new(3) }])),
            ..EventBlocks::default()
        };
        assert_eq!(decode(&mut Reader::new(&bytes)), Some(expected));
        for end in 0..bytes.len() {
            assert_eq!(decode(&mut Reader::new(&bytes[..end])), None, "{end}");
        }
    }

    #[test]
    fn a_transfer_is_packed_into_these_exact_bytes_and_read_back() {
        let (receiver, author) = (UserId::parse("bob").unwrap(), Author { by: "shop".into(), reason: "hi".into() });
        let terms = vec![PartTerms { expires_at: None, priority: 9 }];
        let mut bytes = Vec::new();
        let (to, of) = (receiver.clone(), author.clone());
        encode_receiver(&Receipt { receiver: to, author: of, terms: vec![] }, &mut bytes);
        assert_eq!(bytes, *b"\x06\x03bob\x04shop\x02hi");
        bytes.extend([GRANTS, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 6, 0, 0, 0, 3, TERMS, 1, 0, 0, 0, 0, 0, 0, 9, END]);
        let mut read = decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(read.clone().receipt(false), None, "only a transfer has a receiver");
        assert_eq!(read.receipt(true), Some(Some(Box::new(Receipt { receiver, author, terms }))));
        assert_eq!(read.receipt(true), None, "a transfer needs a receiver");
    }

    #[test]
    fn malformed_blocks_are_not_guessed() {
        let whole = packed(TokenKinds::new(5, 3, 1).unwrap());
        let with = |end: &[u8]| [&whole, end].concat();
        let too_many_cached = [1, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0];
        let unknown_flag = [1, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 1, 2, 0];
        for bytes in [
            with(&[]),
            with(&[99, 0]),
            with(&with(&[0])),
            whole[..9].to_vec(),
            too_many_cached.into(),
            unknown_flag.into(),
        ] {
            assert_eq!(decode(&mut Reader::new(&bytes)), None, "{bytes:?}");
        }
    }
}
