//! The form of an answer, by its first bytes. The header decides only if they do not.

use axum::http::{HeaderMap, header};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Server-sent events.
    Events,
    /// One JSON document.
    Whole,
}

/// A byte order mark.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Fields of an event. A line that begins with a colon is a comment.
const FIELDS: [&[u8]; 5] = [b"data", b"event", b"id", b"retry", b""];

/// Returns the length of what precedes the first significant byte of a body: a byte order mark, and white space, which
/// some upstreams send while they work.
pub(crate) fn leading_bytes(body: &[u8]) -> usize {
    let unmarked = body.strip_prefix(MARK).unwrap_or(body);
    body.len() - unmarked.trim_ascii_start().len()
}

/// Decides by the first significant bytes. Returns `None` if they may become a field's name.
pub(crate) fn form(first: &[u8], by_header: Form) -> Option<Form> {
    match first {
        // Nothing, or half of a mark.
        first if MARK.starts_with(first) => None,
        [b'{' | b'[', ..] => Some(Form::Whole),
        _ if FIELDS.iter().any(|field| begins_with_field(first, field)) => Some(Form::Events),
        _ if may_become_field(first) => None,
        _ => Some(by_header),
    }
}

/// Whether bytes under the name of a coding are not encoded. Returns `None` if there are too few.
pub(crate) fn is_plain(first: &[u8]) -> Option<bool> {
    if MARK.starts_with(&first[..first.len().min(MARK.len())]) {
        return (first.len() >= MARK.len()).then_some(true);
    }
    match first.trim_ascii_start() {
        [] => None,
        [b'{', rest @ ..] => rest.first().map(|next| matches!(next, b'"' | b'}') || next.is_ascii_whitespace()),
        first if FIELDS.iter().any(|field| begins_with_field(first, field)) => Some(true),
        first if may_become_field(first) => None,
        _ => Some(false),
    }
}

fn begins_with_field(first: &[u8], field: &[u8]) -> bool {
    first.strip_prefix(field).is_some_and(|rest| rest.first() == Some(&b':'))
}

fn may_become_field(first: &[u8]) -> bool {
    FIELDS.iter().any(|field| field.starts_with(first)) || FIELDS[..4].contains(&first)
}

/// Returns the form that the header names, without regard to case and parameters.
pub(crate) fn form_by_header(headers: &HeaderMap) -> Form {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("text/event-stream") { Form::Events } else { Form::Whole }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn first_bytes_decide() {
        for by_header in [Form::Events, Form::Whole] {
            for (first, form_of) in [
                ("", None),
                ("{", Some(Form::Whole)),
                ("[1]", Some(Form::Whole)),
                ("data: {}", Some(Form::Events)),
                ("data:", Some(Form::Events)),
                ("event: x", Some(Form::Events)),
                ("id: 1", Some(Form::Events)),
                ("retry: 1", Some(Form::Events)),
                (": ping", Some(Form::Events)),
                ("d", None),
                ("\u{feff}x", Some(by_header)),
                ("data", None),
                ("even", None),
                ("<html>", Some(by_header)),
                ("dataset", Some(by_header)),
                ("other: 1", Some(by_header)),
            ] {
                assert_eq!(form(first.as_bytes(), by_header), form_of, "{first}");
            }
        }
    }

    #[test]
    fn mark_and_white_space_lead() {
        for (body, leading) in [
            (&b""[..], 0),
            (b" \r\n\t", 4),
            (b"\n{", 1),
            (b"\xef\xbb\xbf", 3),
            (b"\xef\xbb\xbf \ndata:", 5),
            (b"\xef", 0),
            (b"\xef\xbb", 0),
            (b"data:", 0),
        ] {
            assert_eq!(leading_bytes(body), leading, "{body:?}");
        }
    }

    #[test]
    fn plain_bytes_are_told_from_encoded_ones() {
        for (first, plain) in [
            (&b"data: x"[..], Some(true)),
            (b"\n: ping", Some(true)),
            (b"{\"a\"", Some(true)),
            (b"\xef\xbb\xbf", Some(true)),
            (b"{", None),
            (b"dat", None),
            (b"\n", None),
            (b"\xef", None),
            (b"{\x07", Some(false)),
            (b"\x78\x9c", Some(false)),
            (b"data\x00", Some(false)),
        ] {
            assert_eq!(is_plain(first), plain, "{first:?}");
        }
    }

    #[test]
    fn content_type_is_read_without_regard_to_case_and_parameters() {
        for (value, form) in [
            ("text/event-stream", Form::Events),
            ("Text/Event-Stream ; charset=utf-8", Form::Events),
            ("application/json", Form::Whole),
            ("text/event-streams", Form::Whole),
            ("", Form::Whole),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(form_by_header(&headers), form, "{value}");
        }
    }
}
