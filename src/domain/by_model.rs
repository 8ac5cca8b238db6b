//! Values by model name or pattern.

use std::collections::BTreeMap;

use super::InvalidInput;

/// Values by model name or pattern. Clients write the names, so neither case nor white space around them matters, and
/// `vendor/name` and a dated version such as `name-2024-11-20` have the value of `name`, unless they are listed
/// themselves.
#[derive(Debug, Clone)]
pub(super) struct ByModel<T> {
    by_name: BTreeMap<String, T>,
    /// The most specific pattern first.
    by_pattern: Vec<(String, T)>,
}

impl<T: Copy> ByModel<T> {
    /// Creates the values. `*` in a name stands for any text. Of two patterns with as many other characters, the one
    /// with the larger `rank` counts.
    ///
    /// # Errors
    /// If two names differ only in case or surrounding white space.
    pub(super) fn new<R: Ord>(
        values: impl IntoIterator<Item = (String, T)>,
        rank: impl Fn(&T) -> R,
    ) -> Result<Self, InvalidInput> {
        let mut all = BTreeMap::new();
        for (name, value) in values {
            if all.insert(normalized(&name), value).is_some() {
                let rule = format!("{name} is listed twice, in another case");
                return Err(InvalidInput { field: "models", rule });
            }
        }
        let (patterns, by_name): (BTreeMap<String, T>, _) = all.into_iter().partition(|(name, _)| name.contains('*'));
        let mut by_pattern: Vec<(String, T)> = patterns.into_iter().collect();
        let literals = |pattern: &str| pattern.chars().filter(|letter| *letter != '*').count();
        by_pattern.sort_by_key(|(pattern, value)| std::cmp::Reverse((literals(pattern), rank(value))));
        Ok(Self { by_name, by_pattern })
    }

    /// Removes and returns the value of a name.
    pub(super) fn take(&mut self, name: &str) -> Option<T> {
        self.by_name.remove(name)
    }

    /// The names without patterns, in lower case, and their values.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, T)> {
        self.by_name.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Returns the value of a model.
    pub(super) fn get(&self, model: &str) -> Option<T> {
        let name = normalized(model);
        let without_vendor = name.rsplit('/').next().unwrap_or(&name);
        let candidates = [&name, without_vendor, undated(&name), undated(without_vendor)];
        candidates.iter().find_map(|candidate| self.listed(candidate))
    }

    fn listed(&self, name: &str) -> Option<T> {
        let by_pattern = || self.by_pattern.iter().find(|(pattern, _)| matches(pattern, name)).map(|(_, value)| *value);
        self.by_name.get(name).copied().or_else(by_pattern)
    }
}

fn normalized(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Removes a date at the end: `-2024-11-20`, `-20241120`.
fn undated(name: &str) -> &str {
    let is_date_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name.rsplitn(4, '-').collect();
    match parts[..] {
        [day, month, year, name]
            if [day, month, year].map(str::len) == [2, 2, 4]
                && [day, month, year].iter().all(|part| is_date_part(part)) =>
        {
            name
        }
        [date, ..] if date.len() == 8 && is_date_part(date) => name[..name.len() - 8].trim_end_matches('-'),
        _ => name,
    }
}

/// Whether a name fits a pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_any_text_in_place_of_its_stars() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*b*", "abcb", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
