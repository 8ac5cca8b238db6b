//! Costs of models.

use std::collections::BTreeMap;

use super::{InvalidInput, ap::Ap};

/// AP per message, by model name.
#[derive(Debug, Clone)]
pub struct ModelCosts {
    by_name: BTreeMap<String, Ap>,
    default: Ap,
}

impl ModelCosts {
    /// Name for all models without their own cost.
    const DEFAULT: &str = "default";

    /// Creates the costs from the configuration, which must include `default`.
    ///
    /// # Errors
    /// If a cost is not 1 to 1,000,000, or `default` is missing.
    pub fn new(costs: &BTreeMap<String, u32>) -> Result<Self, InvalidInput> {
        let invalid = |rule: String| InvalidInput { field: "models", rule };
        let cost = |(name, ap): (&String, &u32)| {
            let ap = Ap::cost((*ap).into()).map_err(|error| invalid(format!("{name}: {}", error.rule)))?;
            Ok((name.clone(), ap))
        };
        let mut by_name = costs.iter().map(cost).collect::<Result<BTreeMap<_, _>, _>>()?;
        let default = by_name.remove(Self::DEFAULT).ok_or_else(|| invalid("default is missing".into()))?;
        Ok(Self { by_name, default })
    }

    /// Cost of one answer of the model.
    #[must_use]
    pub fn of(&self, model: &str) -> Ap {
        self.by_name.get(model).copied().unwrap_or(self.default)
    }
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
        assert_eq!([costs.of("gpt-4o").get(), costs.of("gpt-4o-mini").get(), costs.of("").get()], [3, 1, 1]);
    }

    #[test]
    fn a_missing_default_and_a_cost_of_zero_are_refused() {
        assert!(costs(&[("gpt-4o", 3)]).is_err());
        assert!(costs(&[("default", 1), ("free-lunch", 0)]).unwrap_err().to_string().contains("free-lunch"));
    }
}
