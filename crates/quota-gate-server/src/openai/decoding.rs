//! Decodes answers that are compressed although the gate asks for `identity`. The body decides: a header may be
//! missing, or name a coding that was not used.

use std::io::{self, Read, Write};

use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::openai::form;

/// Bytes that are decoded in one step, so that a piece of zeros does not become a gigabyte in memory.
const STEP_BYTES: usize = 1024;

/// A `Content-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Deflate,
    /// Another one, or several.
    Other,
}

impl Coding {
    /// Reads the header.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut coding = Self::Identity;
        let values = headers.get_all(header::CONTENT_ENCODING).iter();
        for name in values.flat_map(|value| value.to_str().unwrap_or("?").split(',')) {
            coding = match (coding, name.trim().to_ascii_lowercase().as_str()) {
                (coding, "" | "identity") => coding,
                (Self::Identity, "gzip" | "x-gzip") => Self::Gzip,
                (Self::Identity, "deflate") => Self::Deflate,
                _ => return Self::Other,
            };
        }
        coding
    }
}

/// A body on its way to plain bytes.
pub(crate) enum Decoder {
    /// Holds the first bytes until they show the coding.
    Undecided(Coding, BytesMut),
    Identity,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    Deflate(Box<DeflateDecoder<Vec<u8>>>),
    /// Passes as it is: the gate cannot decode it.
    Opaque,
}

impl Decoder {
    pub(crate) fn new(coding: Coding) -> Self {
        Self::Undecided(coding, BytesMut::new())
    }

    pub(crate) const fn is_opaque(&self) -> bool {
        matches!(self, Self::Opaque)
    }

    /// Decodes the first part of a piece, and removes it from the piece.
    pub(crate) fn decode(&mut self, piece: &mut Bytes) -> io::Result<Bytes> {
        if let Self::Undecided(coding, held) = self {
            held.extend_from_slice(piece);
            *piece = Bytes::new();
            let Some(decided) = decide(*coding, held) else { return Ok(Bytes::new()) };
            *piece = std::mem::take(held).freeze();
            *self = decided;
        }
        match self {
            Self::Undecided(..) | Self::Identity | Self::Opaque => Ok(std::mem::take(piece)),
            Self::Gzip(decoder) => step(decoder.as_mut(), piece, MultiGzDecoder::get_mut),
            Self::Zlib(decoder) => step(decoder.as_mut(), piece, ZlibDecoder::get_mut),
            Self::Deflate(decoder) => step(decoder.as_mut(), piece, DeflateDecoder::get_mut),
        }
    }

    /// Returns the bytes of a body that has ended before they showed a coding.
    pub(crate) fn rest(&mut self) -> Bytes {
        match self {
            Self::Undecided(_, held) => std::mem::take(held).freeze(),
            _ => Bytes::new(),
        }
    }
}

fn step<D: Write>(decoder: &mut D, piece: &mut Bytes, output: impl Fn(&mut D) -> &mut Vec<u8>) -> io::Result<Bytes> {
    let part = piece.split_to(piece.len().min(STEP_BYTES));
    decoder.write_all(&part)?;
    // What a streaming upstream has flushed must reach the client.
    decoder.flush()?;
    Ok(std::mem::take(output(decoder)).into())
}

/// Decides by the first bytes. Returns `None` if there are too few.
fn decide(coding: Coding, first: &[u8]) -> Option<Decoder> {
    match (coding, first) {
        (_, [] | [0x1f]) => None,
        (_, [0x1f, 0x8b, ..]) => Some(Decoder::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))),
        (Coding::Identity | Coding::Gzip, _) => Some(Decoder::Identity),
        // An answer that is not compressed, under a false name.
        (_, first) if form::is_plain(first)? => Some(Decoder::Identity),
        (Coding::Other, _) => Some(Decoder::Opaque),
        (Coding::Deflate, [_]) => None,
        // RFC 9110 means zlib; some servers send its content without the frame.
        (Coding::Deflate, [method, flags, ..]) => {
            let is_zlib = method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31);
            Some(if is_zlib {
                Decoder::Zlib(Box::new(ZlibDecoder::new(Vec::new())))
            } else {
                Decoder::Deflate(Box::new(DeflateDecoder::new(Vec::new())))
            })
        }
    }
}

/// Decodes a whole body of at most `bytes_max` decoded bytes.
///
/// # Errors
/// If it is damaged ([`io::ErrorKind::InvalidData`]), or longer ([`io::ErrorKind::FileTooLarge`]).
pub(crate) fn decode_whole(coding: Coding, body: &[u8], bytes_max: usize) -> io::Result<Bytes> {
    use flate2::read;
    let mut decoded = Vec::new();
    let limit = bytes_max as u64 + 1;
    let invalid = |error: io::Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut read = |reader: &mut dyn Read| reader.take(limit).read_to_end(&mut decoded).map(drop).map_err(invalid);
    match coding {
        Coding::Identity | Coding::Other => return Ok(Bytes::copy_from_slice(body)),
        Coding::Gzip => read(&mut read::MultiGzDecoder::new(body))?,
        Coding::Deflate => match decide(coding, body) {
            Some(Decoder::Deflate(_)) => read(&mut read::DeflateDecoder::new(body))?,
            _ => read(&mut read::ZlibDecoder::new(body))?,
        },
    }
    if decoded.len() > bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(decoded.into()) }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use flate2::{Compression, write};

    use super::*;

    const TEXT: &str = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &str) -> Vec<u8> {
        let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &str) -> Vec<u8> {
        let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// Decodes a body that arrives in pieces of `cut` bytes.
    fn decoded(coding: Coding, body: &[u8], cut: usize) -> io::Result<Vec<u8>> {
        let (mut decoder, mut out) = (Decoder::new(coding), Vec::new());
        for piece in body.chunks(cut) {
            let mut piece = Bytes::copy_from_slice(piece);
            while !piece.is_empty() {
                out.extend_from_slice(&decoder.decode(&mut piece)?);
            }
        }
        out.extend_from_slice(&decoder.rest());
        Ok(out)
    }

    #[test]
    fn body_is_decoded_by_its_bytes_wherever_it_is_cut() {
        let (gzip, zlib, deflate) = (gzip(TEXT), zlib(TEXT), deflate(TEXT));
        for cut in [1, 2, 3, 7, 1000] {
            for (coding, body) in [
                (Coding::Gzip, &gzip[..]),
                (Coding::Identity, &gzip),
                (Coding::Other, &gzip),
                (Coding::Deflate, &zlib),
                (Coding::Deflate, &deflate),
                (Coding::Identity, TEXT.as_bytes()),
                (Coding::Gzip, TEXT.as_bytes()),
                (Coding::Deflate, TEXT.as_bytes()),
                (Coding::Other, TEXT.as_bytes()),
                (Coding::Deflate, b"{\"a\":1}"),
            ] {
                let expected = if body.starts_with(b"{") { &b"{\"a\":1}"[..] } else { TEXT.as_bytes() };
                assert_eq!(decoded(coding, body, cut).unwrap(), expected, "{coding:?} {cut}");
            }
            let opaque = b"\x8b\x07\x80data: brotli\x03";
            assert_eq!(decoded(Coding::Other, opaque, cut).unwrap(), opaque, "{cut}");
        }
        assert!(decoded(Coding::Gzip, b"\x1f\x8b damaged beyond repair", 9).is_err());
        assert_eq!(decoded(Coding::Gzip, b"\n", 1).unwrap(), b"\n", "nothing is held back that cannot be compressed");
    }

    #[test]
    fn one_step_has_a_bound() {
        let bomb = gzip(&"0".repeat(64 * 1024 * 1024));
        let mut piece = Bytes::from(bomb);
        assert!(piece.len() > STEP_BYTES * 8);
        let mut decoder = Decoder::new(Coding::Gzip);
        for _ in 0..8 {
            assert!(decoder.decode(&mut piece).unwrap().len() <= STEP_BYTES * 1100);
        }
    }

    #[test]
    fn whole_body_is_decoded_up_to_a_bound() {
        for (coding, body) in
            [(Coding::Gzip, gzip(TEXT)), (Coding::Deflate, zlib(TEXT)), (Coding::Deflate, deflate(TEXT))]
        {
            assert_eq!(decode_whole(coding, &body, TEXT.len()).unwrap(), TEXT);
            let kind = |bytes_max, body: &[u8]| decode_whole(coding, body, bytes_max).unwrap_err().kind();
            assert_eq!(kind(TEXT.len() - 1, &body), io::ErrorKind::FileTooLarge);
            assert_eq!(kind(TEXT.len(), &body[..body.len() - 3]), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn header_names_one_coding_or_another_one() {
        for (values, coding) in [
            (&[][..], Coding::Identity),
            (&[""], Coding::Identity),
            (&["identity"], Coding::Identity),
            (&["GZip "], Coding::Gzip),
            (&["x-gzip, identity"], Coding::Gzip),
            (&["deflate"], Coding::Deflate),
            (&["br"], Coding::Other),
            (&["gzip, gzip"], Coding::Other),
            (&["gzip", "br"], Coding::Other),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(Coding::of(&headers), coding, "{values:?}");
        }
    }
}
