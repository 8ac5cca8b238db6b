//! Splits a byte stream into server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Enough for an event with a picture in it. Longer events pass unread.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Splits a stream into whole events. Buffers an incomplete event until the rest arrives.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pending: BytesMut,
    /// Bytes of `pending` already searched for the end of an event.
    scanned: usize,
}

impl Events {
    /// Appends a piece and returns the complete events that `keeps` accepts.
    pub(crate) fn pass(&mut self, piece: &[u8], mut keeps: impl FnMut(&[u8]) -> bool) -> Bytes {
        self.pending.extend_from_slice(piece);
        let mut kept: Option<BytesMut> = None;
        while let Some(end) = self.next_end() {
            let event = self.pending.split_to(end);
            if keeps(&event) {
                match &mut kept {
                    // Adjacent parts of one buffer are joined without a copy.
                    Some(kept) => kept.unsplit(event),
                    None => kept = Some(event),
                }
            }
        }
        if self.pending.len() > EVENT_BYTES_MAX {
            kept.get_or_insert_default().unsplit(self.pending.split());
            self.scanned = 0;
        }
        kept.unwrap_or_default().freeze()
    }

    /// Returns the buffered rest when the stream has ended.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.pending.split().freeze()
    }

    /// Returns the end of the first event: the position after an empty line.
    fn next_end(&mut self) -> Option<usize> {
        // The empty line may begin in the bytes scanned before.
        let from = self.scanned.saturating_sub(3);
        let text = &self.pending[from..];
        let end = text.iter().enumerate().find_map(|(at, byte)| {
            let rest = &text[at..];
            match byte {
                b'\n' if rest.starts_with(b"\n\n") => Some(at + 2),
                b'\n' if rest.starts_with(b"\n\r\n") => Some(at + 3),
                b'\r' if rest.starts_with(b"\r\r") => Some(at + 2),
                _ => None,
            }
        });
        self.scanned = if end.is_some() { 0 } else { self.pending.len() };
        end.map(|end| from + end)
    }
}

/// Returns the data of an event: its `data:` lines, joined.
pub(crate) fn data(event: &[u8]) -> Option<Cow<'_, str>> {
    field(event, "data")
}

/// Returns the values of a field of an event, joined. Invalid UTF-8 is replaced, as clients do.
pub(crate) fn field<'a>(event: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    match String::from_utf8_lossy(event) {
        Cow::Borrowed(text) => values(text, name),
        Cow::Owned(text) => values(&text, name).map(|value| Cow::Owned(value.into_owned())),
    }
}

fn values<'a>(text: &'a str, name: &str) -> Option<Cow<'a, str>> {
    // A stream may begin with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split(['\n', '\r']).filter_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(value.strip_prefix(' ').unwrap_or(value))
    });
    let first = lines.next()?;
    Some(lines.fold(Cow::Borrowed(first), |joined, line| Cow::Owned(format!("{joined}\n{line}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        "data: one\n\n: a comment\n\nevent: x\ndata: two\ndata:more\n\ndata: three\r\n\r\ndata: four\r\rdata: half";

    /// Passes the stream in pieces of `cut` bytes. Returns the output and the data of each event.
    fn passed(cut: usize, dropped: &str) -> (String, Vec<String>) {
        let (mut events, mut seen, mut out) = (Events::default(), Vec::new(), Vec::new());
        for piece in STREAM.as_bytes().chunks(cut) {
            let kept = events.pass(piece, |event| {
                let data = data(event).map(Cow::into_owned).unwrap_or_default();
                seen.push(data.clone());
                data != dropped
            });
            out.extend_from_slice(&kept);
        }
        out.extend_from_slice(&events.rest());
        (String::from_utf8(out).unwrap(), seen)
    }

    #[test]
    fn events_pass_whole_wherever_the_stream_is_cut() {
        for cut in 1..=STREAM.len() {
            let (out, seen) = passed(cut, "nothing");
            assert_eq!(out, STREAM, "cut at {cut}");
            assert_eq!(seen, ["one", "", "two\nmore", "three", "four"], "cut at {cut}");
            let (out, _) = passed(cut, "two\nmore");
            assert_eq!(out, STREAM.replace("event: x\ndata: two\ndata:more\n\n", ""), "cut at {cut}");
        }
    }

    #[test]
    fn too_long_event_passes_unread() {
        let mut events = Events::default();
        let long = vec![b'x'; EVENT_BYTES_MAX + 1];
        assert_eq!(events.pass(&long, |_| false).len(), long.len());
        assert_eq!(events.pass(b"data: y\n\n", |_| true), "data: y\n\n");
    }
}
