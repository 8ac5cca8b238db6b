//! Reads what the SQL function `left_of_grants` returns.

use crate::domain::{
    ap::Ap,
    clock::instant,
    grant::{Grant, GrantNumber, Grants},
};

/// Fields of a grant in the list: number, AP left, expiry in ms (0: never), priority.
const FIELDS: usize = 4;

/// Returns the grants of a user at a version; `None` if a number is out of its range.
pub(in crate::store::postgres) fn parse(version: i64, list: Option<Vec<i64>>) -> Option<Grants> {
    let grant = |fields: &[i64]| {
        let &[number, left, expiry_ms, priority] = fields else { return None };
        Some(Grant {
            number: GrantNumber::new(u64::try_from(number).ok()?)?,
            left: Ap::new(u32::try_from(left).ok()?),
            expires_at: (expiry_ms > 0).then(|| instant(expiry_ms)),
            priority: u8::try_from(priority).ok()?,
        })
    };
    let live = list.unwrap_or_default().chunks(FIELDS).map(grant).collect::<Option<_>>()?;
    Some(Grants { version: u64::try_from(version).ok()?, live })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_four_numbers_for_each_grant() {
        let grants = parse(9, Some(vec![7, 40, 0, 100, 8, 5, 1_000, 1])).unwrap();
        let grant = |number, left, expires_at, priority| Grant {
            number: GrantNumber::new(number).unwrap(),
            left: Ap::new(left),
            expires_at,
            priority,
        };
        assert_eq!(grants.version, 9);
        assert_eq!(grants.live, [grant(7, 40, None, 100), grant(8, 5, Some(instant(1_000)), 1)]);
        assert_eq!(parse(0, None), Some(Grants::default()));
        for wrong in [vec![7, 40, 0], vec![0, 40, 0, 1], vec![7, -1, 0, 1], vec![7, 1, 0, 256]] {
            assert_eq!(parse(9, Some(wrong)), None);
        }
    }
}
