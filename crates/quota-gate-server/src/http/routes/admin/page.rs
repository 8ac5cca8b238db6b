//! Pages of a list: `next` of one page is `after` of the next.

use quota_gate::domain::InvalidInput;

/// Entries of a page: default and maximum.
const SIZE_DEFAULT: u32 = 50;
const SIZE_MAX: u32 = 200;

/// A requested page.
pub(super) struct Page<Cursor> {
    size: u32,
    /// Position of the last entry of the previous page; `None` for the first page.
    pub(super) after: Option<Cursor>,
}

impl<Cursor> Page<Cursor> {
    /// Reads the parameters `limit` and `after`. `read` parses a cursor.
    pub(super) fn new(
        limit: Option<u32>,
        after: Option<&str>,
        read: impl FnOnce(&str) -> Option<Cursor>,
    ) -> Result<Self, InvalidInput> {
        let size = page_size(limit)?;
        let wrong = || InvalidInput { field: "after", rule: "must be `next` of an earlier page".into() };
        let after = after.map(|text| read(text).ok_or_else(wrong)).transpose()?;
        Ok(Self { size, after })
    }

    /// Number of entries to query: one more than the page has, to know whether entries follow it.
    pub(super) const fn query_limit(&self) -> u32 {
        self.size + 1
    }

    /// Returns the page's entries and, if entries follow it, `next`: the cursor of its last entry.
    pub(super) fn cut<T>(&self, mut found: Vec<T>, cursor: impl FnOnce(&T) -> String) -> (Vec<T>, Option<String>) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let has_more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| has_more).map(cursor);
        (found, next)
    }
}

/// Reads the parameter `limit`.
pub(super) fn page_size(limit: Option<u32>) -> Result<u32, InvalidInput> {
    match limit.unwrap_or(SIZE_DEFAULT) {
        limit if (1..=SIZE_MAX).contains(&limit) => Ok(limit),
        _ => Err(InvalidInput { field: "limit", rule: format!("must be 1 to {SIZE_MAX}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: u32, after: &str) -> Result<Page<u32>, InvalidInput> {
        Page::new(Some(limit), Some(after), |text| text.parse().ok())
    }

    #[test]
    fn next_is_the_cursor_of_the_last_entry_if_more_follow() {
        let page = page(2, "7").unwrap();
        assert_eq!((page.after, page.query_limit()), (Some(7), 3));
        assert_eq!(page.cut(vec![8, 9, 10], u32::to_string), (vec![8, 9], Some("9".to_owned())));
        assert_eq!(page.cut(vec![8, 9], u32::to_string), (vec![8, 9], None));
        assert_eq!(page.cut(vec![], u32::to_string), (vec![], None));
    }

    #[test]
    fn foreign_cursors_and_sizes_out_of_range_are_rejected() {
        assert_eq!(page(2, "x").err().unwrap().field, "after");
        for limit in [0, SIZE_MAX + 1] {
            assert_eq!(page(limit, "7").err().unwrap().field, "limit");
        }
    }
}
