//! The Postgres store: durable state. The only importer of `sqlx`.
//!
//! One file per table, and one per transaction that spans several.
//!
//! | file | content |
//! | --- | --- |
//! | `connections` | the pool, directly or behind a pooler |
//! | `gate_settings`, `membership_levels`, `level_changes`, `rollout_changes` | settings of the installation |
//! | `gates` | the running gates and the Redis of each |
//! | `meters` | the meters beside the chat, and their quotas by level |
//! | `chat_quotas`, `change_level` | one row per user, and changes other than flushes |
//! | `import`, `import_grants`, `foreign_users` | users of other systems |
//! | `meter_accounts` | what a user has on another meter |
//! | `own_quotas` | quotas of single users, and blocks |
//! | `uuid_spellings` | users whose ids are UUIDs in an unusual spelling |
//! | `grants`, `left_of_grants` | AP beside the quota: made, voided and listed |
//! | `unsynced_grants` | changes of grants that Redis has not received |
//! | `export` | everything about a user |
//! | `forget`, `forgotten_users` | replaces a user's id everywhere; the ids that must not come back |
//! | `move_users`, `unsynced_levels` | changed quotas of levels; level changes that Redis has not received |
//! | `chat_usage_logs`, `usage_log_partitions`, `retention` | one row per charge, for as long as it is kept |
//! | `earlier_charges` | the charges of repeated requests, many in one query |
//! | `flush_watermarks`, `flush`, `drain`, `totals`, `grant_charges` | the writing of usage events, each exactly once |
//! | `meter_totals`, `meter_drift` | what was used on other meters; its comparison with the log |
//! | `usage_days` | sums by day, level and model |
//! | `subscriptions` | billing events, the state of each subscription, and the levels that follow |
//! | `payments` | packs that were bought or taken back |
//! | `inbox` | what was accepted while Redis was unavailable |
//! | `notifications` | events for the product's systems |
//! | `dual_writes` | charges for the old credits system |
//! | `user_changes`, `listing`, `heavy_users` | history of changes, and lists for administrators |
//! | `resets`, `dead_letters` | the resetter's queries, and refused events |
//! | `repair_lock` | one repair at a time |
//! | `server_info` | server info |
//! | `logged_messages`, `copied_rows` | the messages of the log for a price replay |
//! | `audit`, `grant_drift`, `transfer_drift`, `adjustments` | comparison of log and totals, and repairs |

mod connections;
mod error;
mod integers;

mod admin;
mod installation;
mod journal;
mod outage;
mod outbox;
mod users;

use std::{str::FromStr, time::Duration};

use sqlx::postgres::PgConnectOptions;

use self::connections::Connections;
pub use self::{
    admin::{
        heavy_users::{HeavyUser, LevelForecast, RunningOut},
        listing::{ClosedMonth, ListedMessage, ListedUser},
    },
    connections::Route,
    error::PostgresError,
    installation::{
        gate_settings::Settings,
        gates::{Heartbeat, SeenGate},
        repair_lock::RepairLock,
        rollout_changes::RolloutChange,
        server_info::{PostgresServerInfo, VERSION_MIN as POSTGRES_VERSION_MIN},
    },
    journal::{
        audit::{Drift, Page, QuotaDrift},
        chat_usage_logs::LoggedUsage,
        dead_letters::{DeadLetter, LetterContent, Replay},
        drain::DrainReport,
        earlier_charges::{EarlierCharge, SoughtCharge},
        flush::{Flush, FlushOutcome, FlushReport},
        grant_drift::GrantDrift,
        meter_drift::MeterDrift,
        retention::LogPartition,
        transfer_drift::TransferDrift,
        usage_days::{TimeUnit, UsageDrift, UsageQuery, UsageRow},
        usage_log_partitions::LogPartitions,
    },
    outage::inbox::{Acceptance, InboxItem, InboxKind},
    outbox::{
        dual_writes::{DualWrite, UsedByUser},
        notifications::Notification,
    },
    users::{
        change_level::{LevelChange, NewLevel},
        chat_quotas::{Loaded, NewUser, QuotaRow},
        foreign_users::{ForeignUser, read_foreign_users},
        forget::{TABLES_WITH_USERS, Traces},
        grant_row::GrantRow,
        grants::{Given, Voided},
        import::{ImportReport, ImportRow},
        import_grants::ImportedGrant,
        move_users::MovedBatch,
        payments::Bought,
        resets::{ResetRun, RolledBatch},
        subscriptions::AppliedEvent,
        unsynced_grants::GrantList,
        user_changes::{Change, NotedRelease, Place},
        uuid_spellings::UuidSpellings,
    },
};

/// Postgres with a connection pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: Connections,
    dual_write: bool,
}

/// Connection options.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// Maximum connections of this gate.
    pub connections_max: u32,
    /// Time to wait for a connection.
    pub acquire_timeout: Duration,
    /// Maximum time of one statement.
    pub statement_timeout: Duration,
}

impl PostgresOptions {
    /// The defaults for this URL.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connections_max: 16,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(30),
        }
    }
}

impl Postgres {
    /// Creates a pool that connects on first use.
    ///
    /// # Errors
    /// If the URL is not a Postgres URL.
    pub fn new(options: &PostgresOptions) -> Result<Self, PostgresError> {
        let connect = PgConnectOptions::from_str(&options.url)
            .map_err(|error| PostgresError::Unfit(format!("DATABASE_URL is not a Postgres URL: {error}")))?
            .application_name("quota-gate");
        let PostgresOptions { connections_max, acquire_timeout, statement_timeout, .. } = *options;
        let pool = Connections::new(connect, statement_timeout, connections_max, acquire_timeout);
        Ok(Self { pool, dual_write: false })
    }

    /// Also queues each written charge for the old credits system.
    #[must_use]
    pub fn with_dual_write(self) -> Self {
        Self { dual_write: true, ..self }
    }

    /// Checks that Postgres answers.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn ping(&self) -> Result<(), PostgresError> {
        sqlx::query("select 1").execute(&self.pool).await.map(|_| ()).map_err(PostgresError::from)
    }

    /// Returns how statements reach Postgres.
    ///
    /// # Errors
    /// If Postgres does not answer, or a setting that the gate depends on cannot be set.
    pub async fn route(&self) -> Result<Route, PostgresError> {
        Ok(self.pool.route().await?)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
