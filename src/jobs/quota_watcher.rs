//! The quota watcher: reports changes of watched users' quotas, made by any gate.
//!
//! It adds no work to messages: it compares the records of watched users a few times a second, many in one read, and
//! reads the quotas that changed. It detects changes by time (a hold expires, a month begins) within seconds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::job::{Job, Next, Pace, StepError};
use crate::{
    domain::{
        meter::MeterCode,
        quota::{Quota, Source},
        user_id::UserId,
    },
    gate::{Gate, GateError},
};

/// Pause between two comparisons of the records.
const PAUSE: Duration = Duration::from_millis(200);
/// While no user is watched, the watcher sleeps until one is.
const IDLE: Duration = Duration::from_hours(1);
/// A quota is read again after this time even if the record is unchanged, because time itself changes quotas.
const READ_EVERY: Duration = Duration::from_secs(5);
/// Users of one read.
const USERS_PER_READ: usize = 500;
/// Users whose quotas are read concurrently.
const CONCURRENCY: usize = 32;

/// Reports changed quotas of a meter. A cheap clone.
#[derive(Clone)]
pub struct QuotaWatcher(Arc<Inner>, MeterCode);

/// A user and a meter.
type Account = (UserId, MeterCode);

struct Inner {
    gate: Gate,
    watched: Mutex<HashMap<Account, Watched>>,
    arrived: Notify,
}

struct Watched {
    quota: watch::Sender<Quota>,
    fingerprint: Option<u64>,
    read_at: Instant,
}

impl Job for QuotaWatcher {
    fn name(&self) -> &'static str {
        "quota_watcher"
    }

    fn pace(&self) -> Pace {
        // While Redis is unavailable nothing changes.
        Pace { pause: PAUSE, retry_pause_max: PAUSE * 5, step_max: Duration::from_secs(5) }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if self.count() == 0 {
            return Ok(Next::After(IDLE));
        }
        self.compare().await?;
        Ok(Next::AfterPause)
    }

    /// Resolves when a user is watched for the first time.
    async fn woken(&self) {
        self.0.arrived.notified().await;
    }
}

impl QuotaWatcher {
    /// Creates a watcher that watches no user yet.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        let inner = Inner { gate: gate.clone(), watched: Mutex::default(), arrived: Notify::new() };
        Self(Arc::new(inner), MeterCode::CHAT)
    }

    /// Returns the same watcher for the quotas of another meter.
    #[must_use]
    pub fn of_meter(&self, meter: MeterCode) -> Self {
        Self(Arc::clone(&self.0), meter)
    }

    /// Returns a receiver of the user's quota, now and after each change. The user is watched while a receiver exists.
    ///
    /// # Errors
    /// If the quota cannot be read now.
    pub async fn watch(&self, user: &UserId) -> Result<watch::Receiver<Quota>, GateError> {
        let quota = self.0.gate.of_meter(self.1).quota(user).await?;
        let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = watched.entry((user.clone(), self.1)).or_insert_with(|| Watched {
            quota: watch::Sender::new(quota.clone()),
            fingerprint: None,
            read_at: Instant::now(),
        });
        let receiver = entry.quota.subscribe();
        entry.publish(quota);
        self.0.arrived.notify_one();
        Ok(receiver)
    }

    /// Returns the number of watched users.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Compares the record of each watched user with the last one, and reads the quotas that may have changed.
    ///
    /// # Errors
    /// If Redis is unavailable.
    pub async fn compare(&self) -> Result<(), GateError> {
        let mut by_partition: HashMap<_, Vec<Account>> = HashMap::new();
        {
            let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.retain(|_, watched| watched.quota.receiver_count() > 0);
            for account in watched.keys() {
                by_partition.entry(self.0.gate.partitions().of(&account.0)).or_default().push(account.clone());
            }
        }
        for (partition, accounts) in by_partition {
            for accounts in accounts.chunks(USERS_PER_READ) {
                let fingerprints = self.0.gate.redis().fingerprints(partition, accounts).await?;
                let due = self.due(accounts, &fingerprints);
                stream::iter(due).for_each_concurrent(CONCURRENCY, |account| self.read(account)).await;
            }
        }
        Ok(())
    }

    /// Returns the users whose record has changed, or whose quota was not read for some time.
    fn due(&self, accounts: &[Account], fingerprints: &[Option<u64>]) -> Vec<Account> {
        let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |(account, fingerprint): (&Account, &Option<u64>)| {
            let watched = watched.get_mut(account)?;
            let is_due = watched.fingerprint != *fingerprint || watched.read_at.elapsed() > READ_EVERY;
            watched.fingerprint = *fingerprint;
            is_due.then(|| account.clone())
        };
        accounts.iter().zip(fingerprints).filter_map(is_due).collect()
    }

    async fn read(&self, account: Account) {
        let quota = self.0.gate.of_meter(account.1).quota(&account.0).await;
        let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = watched.get_mut(&account) else { return };
        match quota {
            Ok(quota) => entry.publish(quota),
            // The quota is read again in the next step.
            Err(_) => entry.fingerprint = None,
        }
    }
}

impl Watched {
    fn publish(&mut self, quota: Quota) {
        self.read_at = Instant::now();
        self.quota.send_if_modified(|known| {
            let is_newer = match (known.source, quota.source) {
                // Of two concurrent reads, the one with the lower version is older.
                (Source::Redis, Source::Redis) => quota.version >= known.version,
                // A quota from Postgres is behind, and its version cannot be compared.
                (Source::Redis, Source::Postgres) => false,
                (Source::Postgres, _) => true,
            };
            let is_news = is_newer && Quota { as_of: known.as_of, ..quota.clone() } != *known;
            if is_news {
                *known = quota;
            }
            is_news
        });
    }
}

impl std::fmt::Debug for QuotaWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuotaWatcher").field("watched", &self.count()).finish_non_exhaustive()
    }
}
