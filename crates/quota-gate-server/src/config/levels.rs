//! A level of `[levels]`: a quota alone, or a table with windows and concurrency.

use serde::Deserialize;

use quota_gate::domain::{
    InvalidInput,
    ap::Ap,
    level::LevelTerms,
    window::{LevelLimits, Window, WindowKey, WindowUnit},
};

/// A level as `config/default.toml` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "AP per month, or a table such as { ap = 1000, windows = [{ every = \"5h\", ap = 80 }] }"
)]
pub enum LevelSection {
    /// AP per month.
    Quota(u32),
    /// AP per month, and other limits.
    Table(LevelTable),
}

/// The table form of a level.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelTable {
    ap: u32,
    #[serde(default)]
    windows: Vec<WindowSection>,
    concurrency: Option<u8>,
}

/// A window of a level. Exactly one of `ap` and `requests` is its limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowSection {
    every: String,
    ap: Option<u32>,
    requests: Option<u32>,
}

impl LevelSection {
    /// AP per month, and a window of AP.
    #[must_use]
    pub fn with_window(ap: u32, every: &str, window_ap: u32) -> Self {
        let window = WindowSection { every: every.to_owned(), ap: Some(window_ap), requests: None };
        Self::Table(LevelTable { ap, windows: vec![window], concurrency: None })
    }

    /// AP per month.
    #[must_use]
    pub const fn ap(&self) -> u32 {
        match self {
            Self::Quota(ap) => *ap,
            Self::Table(table) => table.ap,
        }
    }

    /// Returns quota and limits.
    ///
    /// # Errors
    /// If a window or the concurrency is invalid.
    pub fn terms(&self) -> Result<LevelTerms, InvalidInput> {
        let quota = Ap::new(self.ap());
        let Self::Table(table) = self else { return Ok(quota.into()) };
        let windows = table.windows.iter().map(WindowSection::window).collect::<Result<_, _>>()?;
        Ok(LevelTerms { quota, limits: LevelLimits::new(windows, table.concurrency)? })
    }
}

impl WindowSection {
    fn window(&self) -> Result<Window, InvalidInput> {
        let (unit, limit) = match (self.ap, self.requests) {
            (Some(ap), None) => (WindowUnit::Ap, ap),
            (None, Some(requests)) => (WindowUnit::Requests, requests),
            _ => {
                return Err(InvalidInput {
                    field: "windows",
                    rule: format!("every {:?} must have exactly one of ap and requests", self.every),
                });
            }
        };
        Ok(Window { key: WindowKey::parse(&self.every, unit)?, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::from_toml;

    #[test]
    fn a_level_is_a_quota_or_a_table() {
        let text = "[levels]\nfree = 100\nbasic = 300\nplus = { ap = 1000, concurrency = 3, windows = [
            { every = \"5h\", ap = 80 }, { every = \"1m\", requests = 20 }] }\npro = { ap = 3000 }";
        let levels = from_toml(text).unwrap().levels().unwrap();
        let levels: Vec<String> = levels.iter().map(|(name, terms)| format!("{name}: {terms}")).collect();
        let plus = "plus: 1000 AP, 20 requests every 1m, 80 AP every 5h, 3 concurrent";
        assert_eq!(levels, ["free: 100 AP", "basic: 300 AP", plus, "pro: 3000 AP"]);
    }

    #[test]
    fn wrong_limits_are_refused_by_name() {
        for (level, error) in [
            ("{ ap = 1, windows = [{ every = \"5h\" }] }", "exactly one of ap and requests"),
            ("{ ap = 1, windows = [{ every = \"5h\", ap = 1, requests = 1 }] }", "exactly one of ap and requests"),
            ("{ ap = 1, windows = [{ every = \"5\", ap = 1 }] }", "must be a length"),
            ("{ ap = 1, concurrency = 65 }", "from 1 to 64"),
        ] {
            let refused = from_toml(&format!("[levels]\nfree = {level}")).unwrap().levels().unwrap_err().to_string();
            assert!(refused.contains(error), "{refused}");
        }
        for level in ["{ concurrency = 3 }", "\"many\"", "{ ap = 1, window = [] }"] {
            let refused = from_toml(&format!("[levels]\nfree = {level}")).unwrap_err().to_string();
            assert!(refused.contains("AP per month, or a table"), "{refused}");
        }
    }
}
