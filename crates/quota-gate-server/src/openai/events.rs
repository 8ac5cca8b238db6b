//! Splits a byte stream into server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Enough for an event with a picture in it. Longer events pass unread.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Splits a stream into whole events. Buffers an incomplete event until the rest arrives. Comments and empty lines,
/// which keep a connection alive, pass immediately.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pending: BytesMut,
    /// Bytes of `pending` already read.
    scanned: usize,
    line: Line,
    /// The byte before was a carriage return. A line feed after it belongs to the same end of a line.
    after_return: bool,
    /// `pending` has a line that is no comment.
    has_fields: bool,
    /// Parts that were too long to be read.
    overlong: u32,
    /// The last part was kept.
    is_kept: bool,
}

/// A part of a stream that can pass.
enum Part {
    Event,
    /// A comment, or an empty line.
    Comment,
    /// The line feed that belongs to the part before.
    Continuation,
}

/// The line at the end of what was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Comment,
    Field,
}

impl Events {
    /// Appends a piece. Returns the complete events that `keeps` accepts, and comments.
    pub(crate) fn pass(&mut self, piece: &[u8], mut keeps: impl FnMut(&[u8]) -> bool) -> Bytes {
        self.pending.extend_from_slice(piece);
        let mut kept: Option<BytesMut> = None;
        while let Some(part) = self.find_end() {
            let bytes = self.pending.split_to(self.scanned);
            self.scanned = 0;
            self.has_fields = false;
            self.is_kept = match part {
                Part::Event => keeps(&bytes),
                Part::Comment => true,
                Part::Continuation => self.is_kept,
            };
            if self.is_kept {
                match &mut kept {
                    // Adjacent parts of one buffer are joined without a copy.
                    Some(kept) => kept.unsplit(bytes),
                    None => kept = Some(bytes),
                }
            }
        }
        if self.pending.len() > EVENT_BYTES_MAX {
            kept.get_or_insert_default().unsplit(self.pending.split());
            self.scanned = 0;
            self.overlong += 1;
        }
        kept.unwrap_or_default().freeze()
    }

    /// Whether the last piece made an event too long to be read.
    pub(crate) const fn take_overlong(&mut self) -> bool {
        std::mem::replace(&mut self.overlong, 0) > 0
    }

    /// Returns the buffered rest when the stream has ended.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.pending.split().freeze()
    }

    /// Reads up to the end of the next part. Returns `None` if it has not arrived.
    fn find_end(&mut self) -> Option<Part> {
        while let Some(byte) = self.pending.get(self.scanned) {
            self.scanned += 1;
            let continues = std::mem::replace(&mut self.after_return, *byte == b'\r') && *byte == b'\n';
            match (byte, self.line) {
                (b'\n', _) if continues && self.scanned == 1 => return Some(Part::Continuation),
                (b'\n', _) if continues => {}
                (b'\n' | b'\r', line) => {
                    self.line = Line::Empty;
                    match (line, self.has_fields) {
                        (Line::Empty, true) => return Some(Part::Event),
                        (_, false) => return Some(Part::Comment),
                        (_, true) => {}
                    }
                }
                (b':', Line::Empty) => self.line = Line::Comment,
                (_, Line::Empty) => {
                    self.line = Line::Field;
                    self.has_fields = true;
                }
                (_, Line::Comment | Line::Field) => {}
            }
        }
        None
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

    const STREAM: &str = "\u{feff}data: one\n\n: a comment\n\nevent: x\ndata: two\n: no data\ndata:more\n\n\ndata: three\r\n\r\n: x\r\ndata: four\r\rdata: half";

    /// Passes the stream in pieces of `cut` bytes. Returns the output and the data of each event.
    fn passed(stream: &str, cut: usize, dropped: &str) -> (String, Vec<String>) {
        let (mut events, mut seen, mut out) = (Events::default(), Vec::new(), Vec::new());
        for piece in stream.as_bytes().chunks(cut) {
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
            let (out, seen) = passed(STREAM, cut, "nothing");
            assert_eq!(out, STREAM, "cut at {cut}");
            assert_eq!(seen, ["one", "two\nmore", "three", "four"], "cut at {cut}");
            let (out, _) = passed(STREAM, cut, "two\nmore");
            assert_eq!(out, STREAM.replace("event: x\ndata: two\n: no data\ndata:more\n\n", ""), "cut at {cut}");
        }
    }

    #[test]
    fn events_end_with_an_empty_line_whatever_ends_their_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = "event: x|data: one||: ping||data: two|data: more||data: three||".replace('|', end);
            for cut in 1..=stream.len() {
                assert_eq!(passed(&stream, cut, "").1, ["one", "two\nmore", "three"], "{end:?} {cut}");
                assert_eq!(passed(&stream, cut, "").0, stream, "{end:?} {cut}");
                let without = stream.replace(&format!("data: three{end}{end}"), "");
                assert_eq!(passed(&stream, cut, "three").0, without, "{end:?} {cut}");
            }
        }
    }

    #[test]
    fn heartbeats_pass_immediately() {
        for heartbeat in ["\n", "\r\n", "\n\n", ":\n", ": ping\n", ": ping\n\n", ":\r\n\r\n", ": a\n: b\n"] {
            let mut events = Events::default();
            for _ in 0..2 {
                assert_eq!(events.pass(heartbeat.as_bytes(), |_| false), heartbeat, "{heartbeat:?}");
            }
            // A heartbeat after half an event belongs to it.
            assert_eq!(events.pass(b"data: x\n", |_| true), "", "{heartbeat:?}");
            assert_eq!(events.pass(b": y\n", |_| true), "", "{heartbeat:?}");
            assert_eq!(events.pass(b"\n", |_| true), "data: x\n: y\n\n", "{heartbeat:?}");
        }
    }

    #[test]
    fn too_long_event_passes_unread() {
        let mut events = Events::default();
        let long = vec![b'x'; EVENT_BYTES_MAX + 1];
        assert_eq!(events.pass(&long, |_| false).len(), long.len());
        assert!(events.take_overlong());
        assert_eq!(events.pass(b"x\n\ndata: y\n\n", |_| true), "x\n\ndata: y\n\n");
        assert!(!events.take_overlong());
    }
}
