//! Wire format of remedies: what would let a denied message pass.

use std::sync::Arc;

use quota_gate::{
    domain::{
        decision::Denied,
        model_costs::ModelCosts,
        remedy::{Asked, OfferedPack, Offers, Remedy},
    },
    gate::Gate,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{http::answers::time::Millis, reloadable::Reloadable};

/// Models and packs that a user may choose instead of the denied message's model, or buy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shop {
    costs: Reloadable<ModelCosts>,
    packs: Arc<[OfferedPack]>,
}

/// One way to send the denied message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum RemedyBody {
    /// Send it at this time.
    Wait {
        #[schema(value_type = String, example = "2026-11-23T09:02:09.441Z")]
        until: Millis,
    },
    /// Send it to this model.
    Model {
        #[schema(example = "gpt-4o-mini")]
        model: String,
        /// Cost of the message with it.
        #[schema(example = 1)]
        ap: u32,
    },
    /// Buy this pack first.
    Pack {
        /// Price, product or lookup key in the billing system.
        #[schema(example = "price_1Xyz")]
        pack: String,
        /// AP that it gives.
        #[schema(example = 500)]
        ap: u32,
    },
    /// Change to this level first.
    #[serde(rename_all = "camelCase")]
    Level {
        #[schema(example = "plus")]
        membership_level: String,
        #[schema(example = 1000)]
        monthly_quota: u32,
    },
}

impl Shop {
    /// Offers the models with these costs, and these packs.
    #[must_use]
    pub fn new(costs: Reloadable<ModelCosts>, packs: Vec<OfferedPack>) -> Self {
        Self { costs, packs: packs.into() }
    }

    pub(crate) const fn costs(&self) -> &Reloadable<ModelCosts> {
        &self.costs
    }

    /// What would let this message pass, the smallest first.
    pub(crate) fn remedies(&self, gate: &Gate, denied: &Denied, asked: Asked<'_>) -> Vec<RemedyBody> {
        let (costs, levels) = (self.costs.get(), gate.levels());
        let offers = Offers { costs: &costs, packs: &self.packs, levels: &levels, meter: gate.meter() };
        denied.remedies(asked, offers, gate.calendar()).into_iter().map(RemedyBody::from).collect()
    }
}

impl From<Remedy<'_>> for RemedyBody {
    fn from(remedy: Remedy<'_>) -> Self {
        match remedy {
            Remedy::Wait(until) => Self::Wait { until: Millis(until) },
            Remedy::Model { name, ap } => Self::Model { model: name.to_owned(), ap: ap.get() },
            Remedy::Pack(pack) => Self::Pack { pack: pack.name.clone(), ap: pack.ap.get() },
            Remedy::Level { level, quota } => {
                Self::Level { membership_level: level.name.to_string(), monthly_quota: quota.get() }
            }
        }
    }
}
