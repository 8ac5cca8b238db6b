//! Postgres: the durable truth. The only importer of `sqlx`; one file per table, and one per transaction that spans several.
//!
//! | file | what |
//! | --- | --- |
//! | `gate_settings`, `membership_levels`, `rollout_changes` | what an installation decided |
//! | `chat_quotas`, `change_level`, `import`, `foreign_users` | one row per user, and who changes it besides the flusher |
//! | `unsynced_levels` | whose change of level Redis has not heard of yet |
//! | `chat_usage_logs`, `usage_log_partitions`, `retention` | one row per charge, for as long as it is kept |
//! | `flush_watermarks`, `flush`, `drain`, `totals` | how usage events arrive, each exactly once |
//! | `usage_days` | what they add up to by day, level and model |
//! | `subscriptions` | what billing last said |
//! | `inbox` | what was accepted while Redis was away |
//! | `notifications` | what the product's systems are told of |
//! | `dual_writes` | charges on their way to the old credits system |
//! | `user_changes`, `listing`, `heavy_users` | who changed what, and pages for people who look |
//! | `resets`, `dead_letters` | the resetter's side, and what was refused |
//! | `advisory_locks` | who does something alone |
//! | `server_info` | what Postgres says of itself |
//! | `audit`, `adjustments` | the proof that it adds up, and what makes it add up again |

mod error;

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
        advisory_locks::AdvisoryLock,
        gate_settings::Settings,
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

/// Postgres, with a pool of connections. A cheap clone.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: PgPool,
    hands_over: bool,
}

/// Many times what any transaction of ours pauses between two statements.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(5);

/// How to reach Postgres.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// Most connections of this gate.
    pub connections_max: u32,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// How long one statement may take.
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
    /// Prepares a pool. It connects when it is first used.
    ///
    /// # Errors
    /// If the URL is no Postgres URL.
    pub fn new(options: &PostgresOptions) -> Result<Self, PostgresError> {
        let connect = PgConnectOptions::from_str(&options.url)
            .map_err(|error| PostgresError::Unfit(format!("DATABASE_URL is no Postgres URL: {error}")))?
            .application_name("quota-gate")
            .options([
                ("statement_timeout", options.statement_timeout.as_millis().to_string()),
                // A trim follows the commit of a flush: the rows have to be on disk by then.
                ("synchronous_commit", "on".to_owned()),
                // A gate that stands still in the middle of a transaction must not keep its locks.
                ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MAX.as_millis().to_string()),
                ("timezone", "UTC".to_owned()),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(options.connections_max)
            .acquire_timeout(options.acquire_timeout)
            .connect_lazy_with(connect);
        Ok(Self { pool, hands_over: false })
    }

    /// The same, and each charge that is written is on its way to the old credits system too.
    #[must_use]
    pub fn with_dual_write(self) -> Self {
        Self { hands_over: true, ..self }
    }

    /// Is Postgres there?
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn ping(&self) -> Result<(), PostgresError> {
        sqlx::query("select 1").execute(&self.pool).await.map(|_| ()).map_err(PostgresError::from)
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
