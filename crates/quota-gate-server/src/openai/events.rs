//! Server-sent events, as they pass: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Longer than an event with a picture in it. What is longer passes unread.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Cuts a stream into whole events. Half an event is of no use to anybody, so it waits for its other half.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pending: BytesMut,
    /// So much of it has no end of an event in it.
    scanned: usize,
}

impl Events {
    /// Takes in what came, and gives out the whole events in it that `keeps` wants.
    pub(crate) fn pass(&mut self, piece: &[u8], mut keeps: impl FnMut(&[u8]) -> bool) -> Bytes {
        self.pending.extend_from_slice(piece);
        let mut kept: Option<BytesMut> = None;
        while let Some(end) = self.next_end() {
            let event = self.pending.split_to(end);
            if keeps(&event) {
                match &mut kept {
                    // They came from the same memory, one behind the other.
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

    /// What is left when the stream ends.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.pending.split().freeze()
    }

    /// Where the first event ends: behind an empty line.
    fn next_end(&mut self) -> Option<usize> {
        // The end may have begun in what was scanned before.
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

/// The data of an event: what follows `data:`, its lines joined.
pub(crate) fn data(event: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(event).ok()?;
    let mut lines = text.split(['\n', '\r']).filter_map(|line| {
        let value = line.strip_prefix("data:")?;
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

    /// What comes out, and what was seen.
    fn passed(cut: usize, hides: &str) -> (String, Vec<String>) {
        let (mut events, mut seen, mut out) = (Events::default(), Vec::new(), Vec::new());
        for piece in STREAM.as_bytes().chunks(cut) {
            let kept = events.pass(piece, |event| {
                let data = data(event).map(Cow::into_owned).unwrap_or_default();
                seen.push(data.clone());
                data != hides
            });
            out.extend_from_slice(&kept);
        }
        out.extend_from_slice(&events.rest());
        (String::from_utf8(out).unwrap(), seen)
    }

    #[test]
    fn wherever_a_stream_is_cut_its_events_pass_whole() {
        for cut in 1..=STREAM.len() {
            let (out, seen) = passed(cut, "nothing");
            assert_eq!(out, STREAM, "cut at {cut}");
            assert_eq!(seen, ["one", "", "two\nmore", "three", "four"], "cut at {cut}");
            let (out, _) = passed(cut, "two\nmore");
            assert_eq!(out, STREAM.replace("event: x\ndata: two\ndata:more\n\n", ""), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_too_long_for_an_event_passes() {
        let mut events = Events::default();
        let long = vec![b'x'; EVENT_BYTES_MAX + 1];
        assert_eq!(events.pass(&long, |_| false).len(), long.len());
        assert_eq!(events.pass(b"data: y\n\n", |_| true), "data: y\n\n");
    }
}
