//! Costs of models.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{InvalidInput, ap::Ap};

/// AP per message, by model name or pattern.
#[derive(Debug, Clone)]
pub struct ModelCosts {
    by_name: BTreeMap<String, Ap>,
    /// The most specific pattern first.
    by_pattern: Vec<(String, Ap)>,
    default: Ap,
    unlisted: Unlisted,
}

/// What to do with a message to a model that has no cost of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// It costs the default.
    #[default]
    Default,
    /// It is refused.
    Refuse,
}

impl ModelCosts {
    /// Name for all models without their own cost.
    const DEFAULT: &str = "default";

    /// Creates the costs from the configuration, which must include `default`. `*` in a name stands for any text.
    ///
    /// # Errors
    /// If a cost is not 1 to 1,000,000, two names differ only in case or surrounding white space, or `default` is
    /// missing.
    pub fn new(costs: &BTreeMap<String, u32>) -> Result<Self, InvalidInput> {
        let invalid = |rule: String| InvalidInput { field: "models", rule };
        let mut by_name = BTreeMap::new();
        for (name, ap) in costs {
            let ap = Ap::cost((*ap).into()).map_err(|error| invalid(format!("{name}: {}", error.rule)))?;
            if by_name.insert(normalized(name), ap).is_some() {
                return Err(invalid(format!("{name} is listed twice, in another case")));
            }
        }
        let default = by_name.remove(Self::DEFAULT).ok_or_else(|| invalid("default is missing".into()))?;
        let (patterns, by_name) = by_name.into_iter().partition(|(name, _)| name.contains('*'));
        let mut by_pattern: Vec<(String, Ap)> = BTreeMap::into_iter(patterns).collect();
        let literals = |pattern: &str| pattern.chars().filter(|letter| *letter != '*').count();
        by_pattern.sort_by_key(|(pattern, ap)| std::cmp::Reverse((literals(pattern), *ap)));
        Ok(Self { by_name, by_pattern, default, unlisted: Unlisted::default() })
    }

    /// Sets what to do with messages to other models.
    #[must_use]
    pub fn unlisted(self, unlisted: Unlisted) -> Self {
        Self { unlisted, ..self }
    }

    /// Cost of one answer of the model; the default without a model. Clients write the name, so neither case nor
    /// white space around it matters, and `vendor/name` and a dated version such as `name-2024-11-20` cost what `name`
    /// costs, unless they are listed themselves.
    ///
    /// # Errors
    /// If the model is not listed, and such models are refused.
    pub fn of(&self, model: Option<&str>) -> Result<Ap, InvalidInput> {
        let Some(model) = model else { return Ok(self.default) };
        let name = normalized(model);
        let without_vendor = name.rsplit('/').next().unwrap_or(&name);
        let candidates = [&name, without_vendor, undated(&name), undated(without_vendor)];
        match candidates.iter().find_map(|candidate| self.listed(candidate)) {
            Some(ap) => Ok(ap),
            None if self.unlisted == Unlisted::Default => Ok(self.default),
            None => Err(InvalidInput { field: "model", rule: "is not one of the models of this gate".into() }),
        }
    }

    fn listed(&self, name: &str) -> Option<Ap> {
        let by_pattern = || self.by_pattern.iter().find(|(pattern, _)| matches(pattern, name)).map(|(_, ap)| *ap);
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

    fn costs(models: &[(&str, u32)]) -> Result<ModelCosts, InvalidInput> {
        ModelCosts::new(&models.iter().map(|(name, ap)| ((*name).to_owned(), *ap)).collect())
    }

    #[test]
    fn a_model_costs_what_is_configured_and_the_default_otherwise() {
        let costs = costs(&[("default", 1), ("gpt-4o", 3)]).unwrap();
        let of = |model| costs.of(Some(model)).unwrap().get();
        assert_eq!([of("gpt-4o"), of("gpt-4o-mini"), of(""), of("gpt-4o-2024"), of("xgpt-4o")], [3, 1, 1, 1, 1]);
        assert_eq!(costs.of(None).unwrap().get(), 1);
    }

    #[test]
    fn spelling_does_not_change_the_price() {
        let costs = costs(&[("default", 1), ("GPT-4o", 3), ("azure/gpt-4o", 4), ("gpt-4o-2024-05-13", 5)]).unwrap();
        for (model, ap) in [
            ("GPT-4O", 3),
            (" gpt-4o\t", 3),
            ("openai/gpt-4o", 3),
            ("openrouter/openai/GPT-4o", 3),
            ("gpt-4o-2024-11-20", 3),
            ("openai/gpt-4o-20241120 ", 3),
            ("azure/gpt-4o", 4),
            ("azure/gpt-4o-2024-11-20", 4),
            ("gpt-4o-2024-05-13", 5),
        ] {
            assert_eq!(costs.of(Some(model)).unwrap().get(), ap, "{model}");
        }
    }

    #[test]
    fn most_specific_pattern_sets_the_price() {
        let costs =
            costs(&[("default", 1), ("gpt-4o*", 3), ("gpt-4o-mini*", 2), ("gpt-4o-audio", 9), ("*/claude-*-opus*", 8)]);
        let costs = costs.unwrap();
        for (model, ap) in [
            ("gpt-4o", 3),
            ("gpt-4o-2024-11-20", 3),
            ("GPT-4o-mini-2024", 2),
            ("openai/gpt-4o:nitro", 3),
            ("gpt-4o-audio", 9),
            ("gpt-4", 1),
            ("anthropic/claude-3-opus:beta", 8),
            ("claude-3-opus", 1),
        ] {
            assert_eq!(costs.of(Some(model)).unwrap().get(), ap, "{model}");
        }
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

    #[test]
    fn unlisted_models_may_be_refused() {
        let costs = costs(&[("default", 1), ("gpt-*", 3)]).unwrap().unlisted(Unlisted::Refuse);
        assert_eq!(costs.of(Some("openai/GPT-5")).unwrap().get(), 3);
        assert!(costs.of(Some("o1")).is_err() && costs.of(Some("")).is_err());
        assert_eq!(costs.of(None).unwrap().get(), 1);
    }

    #[test]
    fn a_missing_default_and_a_cost_of_zero_are_refused() {
        assert!(costs(&[("gpt-4o", 3)]).is_err());
        assert!(costs(&[("default", 1), ("free-lunch", 0)]).unwrap_err().to_string().contains("free-lunch"));
        assert!(costs(&[("default", 1), ("a", 2), ("A", 3)]).is_err());
    }
}
