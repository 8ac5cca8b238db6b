//! Price replay: which messages of the usage log proposed levels, windows and prices would have allowed, and what they
//! would have charged.
//!
//! | file | content |
//! | --- | --- |
//! | `proposal`, `prices` | what is proposed |
//! | `message` | a message of the log |
//! | `allowance` | what one user has left; decides one message |
//! | `simulation` | all messages, user by user |
//! | `report`, `most_affected` | the result |

mod allowance;
mod message;
mod most_affected;
mod prices;
mod proposal;
mod report;
mod simulation;

pub use self::{
    message::{LoggedMessage, LoggedTokens},
    most_affected::AffectedUser,
    prices::Prices,
    proposal::Proposal,
    report::{LevelReport, Limit, LimitReport, Report, Sums},
    simulation::Simulation,
};
