//! Price replay: what people write in a proposal, and the answer as JSON, for the command and the API.

mod answer;
mod proposal;

pub(crate) use self::{
    answer::{PriceReplayBody, ReplayedLevelBody, SumsBody},
    proposal::{LevelValue, Levels, ModelValue, Models, proposal},
};
