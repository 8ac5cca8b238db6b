//! The loops that run beside requests. `job` has the one loop; each other file is a step and its bounds.
//!
//! | job | what |
//! | --- | --- |
//! | `flusher` | writes usage events from Redis to Postgres, each exactly once |
//! | `inbox_worker` | applies settlements that Postgres accepted while Redis was unavailable |
//! | `presence` | reports to which Redis this gate is connected |
//! | `levels` | follows changes of the levels, and sends their quotas to Redis |
//! | `level_sync` | sends users' changed levels to Redis |
//! | `grant_sync` | sends users' changed grants to Redis |
//! | `rollout_sync` | follows the most recent change of the rollout |
//! | `schedule` | runs the `resetter` every day, and with it the `sweeper` |
//! | `log_partitions` | creates the usage log's partitions for the next months |
//! | `quota_watcher` | reports changed quotas to those who watch them |
//! | `gauges` | publishes numbers for `/metrics` |

pub mod flusher;
pub mod gauges;
pub mod grant_sync;
pub mod inbox_worker;
pub mod job;
pub mod level_sync;
pub mod levels;
pub mod log_partitions;
pub mod presence;
pub mod quota_watcher;
pub mod resetter;
pub mod rollout_sync;
pub mod schedule;
pub mod sweeper;
