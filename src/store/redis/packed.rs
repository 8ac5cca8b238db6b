//! Packed strings: big-endian numbers in widths that the Lua `struct` library supports, and short texts.

use std::borrow::Cow;

use uuid::Uuid;

/// Appends numbers to a packed string.
pub(crate) trait PutBytes {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    /// Three bytes; the value is below 2^24.
    fn put_u24(&mut self, value: u32);
    fn put_u32(&mut self, value: u32);
    /// Six bytes; the value is below 2^48.
    fn put_u48(&mut self, value: u64);
    fn put_uuid(&mut self, value: Uuid);
    /// A length byte, then the text of 1 to 255 bytes; for a UUID, a zero, then its sixteen bytes.
    fn put_id(&mut self, text: &str, uuid: Option<Uuid>);
    /// A length byte, then the text of 0 to 255 bytes.
    fn put_text(&mut self, text: &str);
}

impl PutBytes for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u24(&mut self, value: u32) {
        debug_assert!(value < 1 << 24);
        self.extend_from_slice(&value.to_be_bytes()[1..]);
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u48(&mut self, value: u64) {
        debug_assert!(value < 1 << 48);
        self.extend_from_slice(&value.to_be_bytes()[2..]);
    }

    fn put_uuid(&mut self, value: Uuid) {
        self.extend_from_slice(value.as_bytes());
    }

    fn put_id(&mut self, text: &str, uuid: Option<Uuid>) {
        debug_assert!((1..256).contains(&text.len()));
        if let Some(uuid) = uuid {
            self.push(0);
            self.put_uuid(uuid);
        } else {
            self.put_text(text);
        }
    }

    fn put_text(&mut self, text: &str) {
        debug_assert!(text.len() < 256);
        self.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.extend_from_slice(text.as_bytes());
    }
}

/// Reads a packed string from the front. Each method returns none if the string ends too soon.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        u16::try_from(self.number(2)?).ok()
    }

    pub(crate) fn u24(&mut self) -> Option<u32> {
        u32::try_from(self.number(3)?).ok()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number(4)?).ok()
    }

    pub(crate) fn u48(&mut self) -> Option<u64> {
        self.number(6)
    }

    pub(crate) fn uuid(&mut self) -> Option<Uuid> {
        Uuid::from_slice(self.take(16)?).ok()
    }

    pub(crate) fn id(&mut self) -> Option<Cow<'a, str>> {
        match self.u8()? {
            0 => Some(self.uuid()?.hyphenated().to_string().into()),
            length => Some(std::str::from_utf8(self.take(length.into())?).ok()?.into()),
        }
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = self.u8()?;
        std::str::from_utf8(self.take(length.into())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_unchanged() {
        let uuid = Uuid::from_bytes(*b"0123456789abcdef");
        for (text, uuid, length) in
            [("alice", None, 6), ("0123456789abcdef", None, 17), (&uuid.to_string(), Some(uuid), 17)]
        {
            let mut bytes = Vec::new();
            bytes.put_id(text, uuid);
            assert_eq!(bytes.len(), length);
            assert_eq!(Reader::new(&bytes).id().unwrap(), text);
        }
    }
}
