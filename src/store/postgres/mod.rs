//! The Postgres store: durable state. The only importer of `sqlx`.
//!
//! One file per table, and one per transaction that spans several.
//!
//! | file | content |
//! | --- | --- |
//! | `gate_settings`, `membership_levels`, `rollout_changes` | settings of the installation |
//! | `gates` | the running gates and the Redis of each |
//! | `chat_quotas`, `change_level`, `import`, `foreign_users` | one row per user, and changes other than flushes |
//! | `unsynced_levels` | level changes that Redis has not received |
//! | `chat_usage_logs`, `usage_log_partitions`, `retention` | one row per charge, for as long as it is kept |
//! | `flush_watermarks`, `flush`, `drain`, `totals` | the writing of usage events, each exactly once |
//! | `usage_days` | sums by day, level and model |
//! | `subscriptions` | the latest billing event of each subscription |
//! | `inbox` | what was accepted while Redis was unavailable |
//! | `notifications` | events for the product's systems |
//! | `dual_writes` | charges for the old credits system |
//! | `user_changes`, `listing`, `heavy_users` | history of changes, and lists for administrators |
//! | `resets`, `dead_letters` | the resetter's queries, and refused events |
//! | `repair_lock` | one repair at a time |
//! | `server_info` | server info |
//! | `audit`, `adjustments` | comparison of log and totals, and repairs |

mod error;
mod integers;

mod admin;
mod installation;
mod journal;
mod outage;
mod outbox;
mod users;

use std::{str::FromStr, time::Duration};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

pub use self::{
    admin::{
        heavy_users::{HeavyUser, LevelForecast, RunningOut, elapsed},
        listing::{ClosedMonth, ListedMessage, ListedUser},
    },
    error::PostgresError,
    installation::{
        gate_settings::Settings,
        gates::{Heartbeat, SeenGate},
        repair_lock::RepairLock,
        rollout_changes::RolloutChange,
        server_info::{PostgresServerInfo, VERSION_MIN as POSTGRES_VERSION_MIN},
    },
    journal::{
        audit::{Drift, Page},
        chat_usage_logs::LoggedUsage,
        dead_letters::{DeadLetter, LetterContent, Replay},
        drain::DrainReport,
        flush::{Flush, FlushOutcome, FlushReport},
        retention::LogPartition,
        usage_days::{TimeUnit, UsageDrift, UsageQuery, UsageRow},
    },
    outage::inbox::{Acceptance, InboxItem, InboxKind},
    outbox::{
        dual_writes::{DualWrite, UsedByUser},
        notifications::Notification,
    },
    users::{
        change_level::LevelChange,
        chat_quotas::{Loaded, NewUser, QuotaRow},
        foreign_users::{ForeignUser, read_foreign_users},
        import::{ImportReport, ImportRow},
        resets::{ResetRun, RolledBatch},
        subscriptions::Noted,
        user_changes::{Change, NotedRelease, Place},
    },
};

/// Postgres with a connection pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: PgPool,
    dual_write: bool,
}

/// Far longer than any transaction of the gate pauses between two statements.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(5);

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
            .application_name("quota-gate")
            .options([
                ("statement_timeout", options.statement_timeout.as_millis().to_string()),
                // A trim follows the commit of a flush, so the rows must be on disk by then.
                ("synchronous_commit", "on".to_owned()),
                // A gate that hangs in a transaction must not keep its locks.
                ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MAX.as_millis().to_string()),
                ("timezone", "UTC".to_owned()),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(options.connections_max)
            .acquire_timeout(options.acquire_timeout)
            .connect_lazy_with(connect);
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

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
