//! Whether a user's level may use a model.

use quota_gate::{
    domain::{model_costs::ModelCosts, rollout::Mode, user_id::UserId},
    gate::Gate,
};

use crate::http::answers::{
    problem::{Code, Problem},
    quota::level_name,
};

/// Checks that the user's level may use all of these models. Reads the user's level only if some level is limited, and
/// only if the gate decides the user's messages.
pub(crate) async fn require_allowed<'a>(
    gate: &Gate,
    costs: &ModelCosts,
    user: &UserId,
    models: impl IntoIterator<Item = &'a str>,
) -> Result<(), Problem> {
    if !costs.limits_levels() || gate.rollout().mode_for(user) != Mode::Enforce {
        return Ok(());
    }
    let quota = gate.quota(user).await?;
    let levels = gate.levels();
    let level = level_name(&levels, quota.level);
    match models.into_iter().find(|model| !costs.allows(level, model)) {
        None => Ok(()),
        Some(model) => Err(Problem::new(
            Code::ModelNotAllowed,
            format!("the level {level} does not include the model {model}; nothing was charged, use another model"),
        )),
    }
}
