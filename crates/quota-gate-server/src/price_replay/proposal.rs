//! Proposed levels and prices as they are written, in TOML or JSON: the syntax of `[levels]` and `[models]` in the
//! configuration, with windows and with prices by tokens.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use quota_gate::domain::{
    InvalidInput,
    ap::Ap,
    level::{self, LevelName, LevelTerms},
    model_costs::{ModelPrice, Unlisted},
    price_replay::{Prices, Proposal},
    token_prices::{TokenPrice, TokenPrices},
    window::{LevelLimits, Window, WindowKey, WindowUnit},
};

/// Terms by the name of the level.
pub(crate) type Levels = BTreeMap<String, LevelValue>;
/// Prices by the name or pattern of the model; `default` is required. `unlisted` is `default` or `refuse`.
pub(crate) type Models = BTreeMap<String, ModelValue>;

/// AP per period; or the quota with windows.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected AP per period, or a table such as { ap = 100, windows = [{ every = \"5h\", ap = 80 }, { every = \"1m\", requests = 20 }] }"
)]
pub(crate) enum LevelValue {
    Quota(u32),
    Terms(LevelTable),
}

/// A quota with windows.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LevelTable {
    /// AP per period.
    ap: u32,
    #[serde(default)]
    #[schema(max_items = 8)]
    windows: Vec<WindowTable>,
    /// Accepted, as in the configuration, but not replayed: the log has no holds.
    #[serde(default, rename = "concurrency")]
    #[schema(rename = "concurrency")]
    _concurrency: Option<u32>,
}

/// A limit for a length of time, which begins with its first use. Exactly one of `ap` and `requests` is given.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    /// Length in minutes, hours or days.
    #[schema(example = "5h", pattern = "^[0-9]+[mhd]$")]
    every: String,
    #[schema(minimum = 1)]
    ap: Option<u32>,
    #[schema(minimum = 1)]
    requests: Option<u32>,
}

/// AP for a message; or prices by tokens; or, for `unlisted`, what to do with other models.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected AP for a message, or a table such as { input = 2.5, cached_input = 1.25, output = 10, minimum = 1 } with AP for a million tokens"
)]
pub(crate) enum ModelValue {
    Flat(u32),
    Tokens(TokensTable),
    Unlisted(UnlistedWord),
}

/// AP for a million tokens.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokensTable {
    input: Decimal,
    /// The price of `input` by default.
    cached_input: Option<Decimal>,
    output: Decimal,
    /// The least AP for a message; 1 by default.
    #[serde(default = "one")]
    #[schema(maximum = 1_000_000)]
    minimum: u32,
}

/// 0 to 1,000,000,000 with at most nine decimal places, as a number or as text.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Decimal {
    Number(f64),
    Text(String),
}

/// What to do with messages to models that are not listed.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnlistedWord {
    Default,
    Refuse,
}

const fn one() -> u32 {
    1
}

/// Checks a proposal. What is not given stays as it is.
///
/// # Errors
/// If a value is invalid. The message names the key.
pub(crate) fn proposal(
    present: &level::Levels,
    levels: Option<Levels>,
    models: Option<Models>,
) -> Result<Proposal, InvalidInput> {
    let levels: Result<Vec<_>, _> = levels.into_iter().flatten().map(|(name, value)| terms(&name, value)).collect();
    Ok(Proposal::new(present, levels?, models.map(prices).transpose()?))
}

fn terms(name: &str, value: LevelValue) -> Result<(LevelName, LevelTerms), InvalidInput> {
    let invalid = |key: &str, error: &InvalidInput| InvalidInput { field: "levels", rule: format!("{key}: {error}") };
    let level = LevelName::parse(name).map_err(|error| invalid(name, &error))?;
    let (quota, windows) = match value {
        LevelValue::Quota(quota) => (quota, Vec::new()),
        LevelValue::Terms(table) => (table.ap, table.windows),
    };
    let windows = windows
        .iter()
        .enumerate()
        .map(|(place, window)| window.read().map_err(|error| invalid(&format!("{name}.windows[{place}]"), &error)));
    let windows = windows.collect::<Result<_, _>>()?;
    let limits = LevelLimits::new(windows, None).map_err(|error| invalid(name, &error))?;
    Ok((level, LevelTerms { quota: Ap::new(quota), limits }))
}

fn prices(models: Models) -> Result<Prices, InvalidInput> {
    const UNLISTED: &str = "unlisted";
    let invalid = |key: &str, rule: &str| InvalidInput { field: "models", rule: format!("{key}: {rule}") };
    let mut unlisted = Unlisted::Default;
    let mut prices = BTreeMap::new();
    for (name, value) in models {
        let price = match value {
            ModelValue::Unlisted(word) if name == UNLISTED => {
                unlisted = word.into();
                continue;
            }
            _ if name == UNLISTED => return Err(invalid(&name, "must be \"default\" or \"refuse\"")),
            ModelValue::Unlisted(_) => return Err(invalid(&name, "must be a price")),
            ModelValue::Flat(ap) => ModelPrice::flat(&name, ap)?,
            ModelValue::Tokens(table) => table.prices().map_err(|error| invalid(&name, &error.to_string()))?.into(),
        };
        prices.insert(name, price);
    }
    Prices::new(prices, unlisted)
}

impl WindowTable {
    fn read(&self) -> Result<Window, InvalidInput> {
        let (unit, limit) = match (self.ap, self.requests) {
            (Some(limit), None) => (WindowUnit::Ap, limit),
            (None, Some(limit)) => (WindowUnit::Requests, limit),
            _ => {
                return Err(InvalidInput { field: "windows", rule: "needs exactly one of `ap` and `requests`".into() });
            }
        };
        Ok(Window { key: WindowKey::parse(&self.every, unit)?, limit })
    }
}

impl TokensTable {
    fn prices(&self) -> Result<TokenPrices, InvalidInput> {
        let minimum =
            Ap::price(self.minimum.into()).map_err(|error| InvalidInput { field: "minimum", rule: error.rule })?;
        Ok(TokenPrices {
            input: self.input.read("input")?,
            cached_input: self.cached_input.as_ref().unwrap_or(&self.input).read("cached_input")?,
            output: self.output.read("output")?,
            minimum,
        })
    }
}

impl Decimal {
    /// The shortest text of a float is the decimal that was written.
    fn read(&self, field: &'static str) -> Result<TokenPrice, InvalidInput> {
        let text = match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        };
        text.parse().map_err(|error: InvalidInput| InvalidInput { field, rule: error.rule })
    }
}

impl From<UnlistedWord> for Unlisted {
    fn from(word: UnlistedWord) -> Self {
        match word {
            UnlistedWord::Default => Self::Default,
            UnlistedWord::Refuse => Self::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use figment::{
        Figment,
        providers::{Format, Toml},
    };
    use quota_gate::domain::level::{Level, LevelCode};

    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        levels: Option<Levels>,
        models: Option<Models>,
    }

    fn read(text: &str) -> Result<Proposal, String> {
        let file: File = Figment::from(Toml::string(text)).extract().map_err(|error| error.to_string())?;
        let (code, name) = (LevelCode::new(1).unwrap(), LevelName::parse("free").unwrap());
        let present = level::Levels::new(
            1,
            vec![Level { code, name, quota: Ap::new(100), limits: LevelLimits::default(), retired: false }],
        )
        .unwrap();
        proposal(&present, file.levels, file.models).map_err(|error| error.to_string())
    }

    #[test]
    fn the_syntax_of_the_configuration_is_read_and_what_is_new() {
        for text in [
            "",
            "[levels]\nfree = 50",
            "[levels]\nfree = { ap = 50, concurrency = 3, windows = [{ every = \"5h\", ap = 80 }, { every = \"1m\", requests = 20 }] }",
            "[models]\nunlisted = \"refuse\"\ndefault = 1\n\"gpt-4o*\" = 3\no1 = { input = 15, output = 60.5 }",
            "[models]\ndefault = { input = 2.5, cached_input = \"1.25\", output = 10, minimum = 0 }\nfree = 0",
        ] {
            assert!(read(text).is_ok(), "{text}: {:?}", read(text));
        }
    }

    #[test]
    fn an_error_names_the_key() {
        for (text, key, rule) in [
            ("[levels]\nfree = -1", "levels.free", "expected AP per period"),
            ("[levels]\nfree = { quotas = 5 }", "levels.free", "ap = 100"),
            ("[levels]\nFree = 5", "levels: Free", "a-z"),
            ("[levels]\nfree = { ap = 5, windows = [{ every = \"5x\", ap = 1 }] }", "free.windows[0]", "\"5h\""),
            ("[levels]\nfree = { ap = 5, windows = [{ every = \"5h\" }] }", "free.windows[0]", "`requests`"),
            (
                "[levels]\nfree = { ap = 5, windows = [{ every = \"60m\", ap = 1 }, { every = \"1h\", ap = 2 }] }",
                "free: windows",
                "1h in ap appears twice",
            ),
            ("[models]\ndefault = \"cheap\"", "models.default", "expected AP for a message"),
            ("[models]\ndefault = \"refuse\"", "models: default", "a price"),
            ("[models]\ndefault = 1\nunlisted = 2", "models: unlisted", "\"refuse\""),
            ("[models]\no1 = 2", "models", "default is missing"),
            ("[models]\ndefault = 1\no1 = { input = 0.0000000001, output = 1 }", "models: o1: input", "9 places"),
            ("[models]\ndefault = { input = 1, output = \"much\" }", "models: default: output", "\"much\""),
            ("[models]\ndefault = 1\no1 = { input = 1 }", "models.o1", "output = 10"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(key) && error.contains(rule), "{text}: {error}");
        }
    }
}
