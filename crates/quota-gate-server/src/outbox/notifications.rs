//! Notifications: reports thresholds, resets and level changes to the product's own systems.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::outbox::{Outbox, webhook::Webhook};
use quota_gate::store::postgres::{Notification, Postgres, PostgresError};

/// How long sent notifications are kept: longer than a period, because a threshold is reported once per period.
const KEPT: TimeDelta = TimeDelta::days(62);

/// The notifications to deliver, and their receiver.
#[derive(Debug, Clone)]
pub struct Notifications {
    /// Stores the notifications.
    pub postgres: Postgres,
    /// Receives the notifications.
    pub webhook: Webhook,
}

impl Outbox for Notifications {
    type Item = Notification;
    const JOB: &'static str = "webhooks";
    const ITEMS: &'static str = "notifications";
    const TRIES: &'static str = "quota_gate_notifications_total";
    const WAITING: &'static str = "quota_gate_notifications_waiting";

    fn id_and_attempts(notification: &Notification) -> (Uuid, i32) {
        (notification.id, notification.attempts)
    }

    async fn claim(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Notification>, PostgresError> {
        self.postgres.claim_notifications(now, until, limit).await
    }

    async fn deliver(&self, notification: &Notification, now: DateTime<Utc>) -> Result<(), String> {
        self.webhook.post(notification, now).await
    }

    async fn accepted(&self, id: Uuid, now: DateTime<Utc>) -> Result<(), PostgresError> {
        self.postgres.notification_sent(id, now).await
    }

    async fn refused(&self, id: Uuid, due_at: DateTime<Utc>, error: &str) -> Result<(), PostgresError> {
        self.postgres.notification_failed(id, due_at, error).await
    }

    async fn waiting(&self, now: DateTime<Utc>) -> Result<u64, PostgresError> {
        self.postgres.tidy_notifications(now - KEPT).await
    }
}
