//! Reads rows of a `COPY … to stdout (format binary)`:
//! <https://www.postgresql.org/docs/15/sql-copy.html#id-1.9.3.55.9.4>.

/// Splits the data into rows of `COLUMNS` fields, none of which is null. Pieces of any size are accepted.
#[derive(Debug, Default)]
pub(super) struct CopiedRows<const COLUMNS: usize> {
    has_begun: bool,
    has_ended: bool,
    /// The beginning of a row whose end has not arrived.
    incomplete: Vec<u8>,
}

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// What ends the data, instead of a number of fields.
const TRAILER: i16 = -1;

impl<const COLUMNS: usize> CopiedRows<COLUMNS> {
    /// Reads a piece, and calls `each` for each complete row.
    ///
    /// # Errors
    /// If the data has another format, or `each` fails.
    pub(super) fn read(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut([&[u8]; COLUMNS]) -> Result<(), sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        let mut joined = std::mem::take(&mut self.incomplete);
        let mut rest = if joined.is_empty() {
            piece
        } else {
            joined.extend_from_slice(piece);
            &joined
        };
        while !self.has_ended {
            let mut unread = rest;
            let is_complete = if self.has_begun {
                self.row(&mut unread, &mut each)?
            } else {
                self.has_begun = header(&mut unread)?;
                self.has_begun
            };
            if !is_complete {
                break;
            }
            rest = unread;
        }
        self.incomplete = rest.to_vec();
        Ok(())
    }

    /// Whether all rows have arrived.
    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Reads one row. Returns whether it is complete.
    fn row(
        &mut self,
        unread: &mut &[u8],
        each: &mut impl FnMut([&[u8]; COLUMNS]) -> Result<(), sqlx::Error>,
    ) -> Result<bool, sqlx::Error> {
        let Some(count) = take(unread).map(i16::from_be_bytes) else { return Ok(false) };
        if count == TRAILER {
            self.has_ended = true;
            return Ok(true);
        }
        if usize::try_from(count) != Ok(COLUMNS) {
            return Err(unexpected("another number of columns"));
        }
        let mut fields: [&[u8]; COLUMNS] = [&[]; COLUMNS];
        for field in &mut fields {
            let Some(length) = take(unread).map(i32::from_be_bytes) else { return Ok(false) };
            let length = usize::try_from(length).map_err(|_| unexpected("a null"))?;
            let Some((bytes, rest)) = unread.split_at_checked(length) else { return Ok(false) };
            (*field, *unread) = (bytes, rest);
        }
        each(fields)?;
        Ok(true)
    }
}

/// Reads the header. Returns whether it is complete.
fn header(unread: &mut &[u8]) -> Result<bool, sqlx::Error> {
    let Some(signature) = take::<11>(unread) else { return Ok(false) };
    if signature != SIGNATURE {
        return Err(unexpected("another signature"));
    }
    let (Some(_flags), Some(extension)) = (take::<4>(unread), take(unread)) else { return Ok(false) };
    let Some((_, rest)) = unread.split_at_checked(u32::from_be_bytes(extension) as usize) else { return Ok(false) };
    *unread = rest;
    Ok(true)
}

fn take<const BYTES: usize>(from: &mut &[u8]) -> Option<[u8; BYTES]> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*bytes)
}

pub(super) fn unexpected(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("the copied rows have {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(rows: &[[&str; 2]]) -> Vec<u8> {
        let mut data = [SIGNATURE, &[0; 8]].concat();
        for row in rows {
            data.extend(2_i16.to_be_bytes());
            for field in row {
                data.extend(i32::try_from(field.len()).unwrap().to_be_bytes());
                data.extend(field.as_bytes());
            }
        }
        data.extend(TRAILER.to_be_bytes());
        data
    }

    /// Fields of each row.
    type Rows = Vec<Vec<Vec<u8>>>;

    fn read(pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<(Rows, bool), sqlx::Error> {
        let (mut rows, mut copied) = (Vec::new(), CopiedRows::<2>::default());
        for piece in pieces {
            copied.read(piece, |fields| {
                rows.push(fields.map(<[u8]>::to_vec).to_vec());
                Ok(())
            })?;
        }
        Ok((rows, copied.has_ended()))
    }

    #[test]
    fn rows_are_the_same_in_pieces_of_any_size() {
        let data = copied(&[["ann", "1"], ["", "long enough to be split"]]);
        let whole = read(&mut [&data[..]].into_iter()).unwrap();
        assert_eq!(
            whole.0,
            [["ann", "1"], ["", "long enough to be split"]].map(|row| row.map(|text| text.as_bytes().to_vec()))
        );
        assert!(whole.1);
        for size in 1..data.len() {
            assert_eq!(read(&mut data.chunks(size)).unwrap(), whole, "{size}");
        }
        assert!(!read(&mut [&data[..data.len() - 2]].into_iter()).unwrap().1, "without its end");
    }

    #[test]
    fn other_data_is_refused() {
        let mut null = copied(&[]);
        null.truncate(19);
        null.extend([0, 2, 0xff, 0xff, 0xff, 0xff]);
        for wrong in [&b"not a copy of any rows"[..], &null, &[&copied(&[])[..19], &[0, 3]].concat()] {
            assert!(read(&mut [wrong].into_iter()).is_err());
        }
    }
}
