//! A user's state in Postgres, from which a record is created. Twins: `lua/operation/seed.lua`, `set_level.lua`.

use super::{
    operation::put_head,
    packed::PutBytes,
    record::{BLOCKED, OWN_QUOTA},
    tails::{encode_grants, encode_windows},
};
use crate::domain::{
    ap::Ap,
    calendar::{AnchorDay, Day, Period},
    grant::Grants,
    level::LevelCode,
    meter::{Meter, MeterCode},
    window::WindowState,
};

/// A user's level, own quota and block, from the row in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserLevel {
    /// Period of the row.
    pub period: Period,
    /// Day of the month on which the user's periods begin.
    pub anchor_day: AnchorDay,
    /// Level in that period.
    pub level: LevelCode,
    /// Quota in that period.
    pub quota: Ap,
    /// Whether `quota` is the user's own, not that of the level.
    pub own_quota: bool,
    /// Whether new messages are refused.
    pub blocked: bool,
    /// Level of the next period, if different.
    pub pending: Option<LevelCode>,
    /// Counts level changes.
    pub level_version: u32,
}

/// A user's state in Postgres, to create a record from. All of it comes from one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Level, quota and period.
    pub level: UserLevel,
    /// AP charged in the period.
    pub used: Ap,
    /// AP charged in total.
    pub total_used: u64,
    /// Day of `used_today`.
    pub day: Day,
    /// AP charged on that day.
    pub used_today: Ap,
    /// The newest window of each length and unit, as the log has it. Windows that are over are ignored.
    pub windows: Vec<WindowState>,
    /// Live grants.
    pub grants: Grants,
}

impl UserLevel {
    /// The same on another meter. A quota of the user's own is one of the chat.
    #[must_use]
    pub fn on_meter(self, meter: &Meter) -> Self {
        let quota = meter.terms(self.level).map_or(Ap::ZERO, |terms| terms.quota);
        Self { quota, own_quota: false, ..self }
    }

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        to.put_u24(self.period.code(self.anchor_day));
        to.put_u8(self.level.get());
        to.put_u32(self.quota.get());
        to.put_u8(self.pending.map_or(0, LevelCode::get));
        to.put_u32(self.level_version);
        to.put_u8(u8::from(self.own_quota) * OWN_QUOTA + u8::from(self.blocked) * BLOCKED);
    }
}

impl Seed {
    const CODE: u8 = 1;

    pub(super) fn encode(&self, meter: MeterCode, slot: u8, to: &mut Vec<u8>) {
        put_head((Self::CODE, meter), (slot, 0), to);
        self.level.encode(to);
        to.put_u32(self.used.get());
        to.put_u48(self.total_used);
        to.put_u16(self.day.number());
        to.put_u32(self.used_today.get());
        if self.windows.is_empty() && self.grants.version == 0 {
            return;
        }
        encode_windows(&self.windows, to);
        encode_grants(&self.grants, to);
    }
}
