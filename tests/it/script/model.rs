//! A model of the script: one user's state and all operations on it, in the simplest Rust.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use quota_gate::{
    domain::{
        calendar::{Calendar, Day, Period},
        hold::{HOLDS_PER_USER_MAX, SETTLE_WINDOW},
        level::{LevelCode, Levels},
    },
    store::redis::ReplyStatus,
};
use uuid::Uuid;

/// How long the requests of a history are remembered.
pub(super) const KEPT_SECONDS: i64 = 86_400;

/// The expected answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub status: ReplyStatus,
    pub replayed: bool,
    pub late: bool,
    pub charged: u32,
    pub overage: u32,
    pub numbers: Numbers,
}

/// The user's numbers in every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub period: Period,
    pub level: LevelCode,
    pub quota: u32,
    pub used: u32,
    pub held: u32,
    pub total_used: u64,
    pub used_today: u32,
}

/// A charge expected in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub id: Uuid,
    pub period: Period,
    pub ap: u32,
    pub overage: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub id: Uuid,
    pub ap: u32,
    pub period: Period,
    pub expires_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy)]
enum Settlement {
    Committed { ap: u32, charged: u32, late: bool },
    Released,
}

/// The state of one user.
#[derive(Debug, Clone)]
pub(super) struct Model {
    calendar: Calendar,
    levels: Levels,
    period: Period,
    level: LevelCode,
    quota: u32,
    /// Whether `quota` is the user's own.
    own_quota: bool,
    blocked: bool,
    pending: Option<LevelCode>,
    level_version: u32,
    used: u32,
    total_used: u64,
    day: Day,
    used_today: u32,
    /// AP of this period that accepted commits charged although the AP of their holds had been used again.
    beyond: u32,
    holds: Vec<Hold>,
    settlements: HashMap<Uuid, Settlement>,
    /// What was requested under a key, and until when that is remembered, in Unix seconds.
    answers: HashMap<String, (u32, i64)>,
    pub(super) events: Vec<Event>,
}

impl Model {
    pub(super) fn new(calendar: Calendar, levels: Levels, now: DateTime<Utc>) -> Self {
        let lowest = levels.lowest().clone();
        Self {
            calendar,
            levels,
            period: calendar.period_at(now),
            level: lowest.code,
            quota: lowest.quota.get(),
            own_quota: false,
            blocked: false,
            pending: None,
            level_version: 0,
            used: 0,
            total_used: 0,
            day: calendar.day_at(now),
            used_today: 0,
            beyond: 0,
            holds: vec![],
            settlements: HashMap::new(),
            answers: HashMap::new(),
            events: vec![],
        }
    }

    pub(super) fn consume(&mut self, now: DateTime<Utc>, id: Uuid, cost: u32, key: Option<&str>) -> Expected {
        self.keeping(now, key, cost, |user| {
            if user.blocked {
                return user.answer(ReplyStatus::Blocked);
            }
            if cost > user.free() {
                return user.answer(ReplyStatus::Denied);
            }
            user.charge(id, user.period, cost, 0);
            user.answer(ReplyStatus::Ok)
        })
    }

    pub(super) fn reserve(&mut self, now: DateTime<Utc>, hold: Hold, key: Option<&str>) -> Expected {
        self.keeping(now, key, hold.ap, |user| {
            if user.blocked {
                return user.answer(ReplyStatus::Blocked);
            }
            if hold.ap > user.free() {
                return user.answer(ReplyStatus::Denied);
            }
            if user.holds.len() >= HOLDS_PER_USER_MAX {
                return user.answer(ReplyStatus::TooManyHolds);
            }
            user.holds.push(Hold { period: user.period, ..hold });
            user.answer(ReplyStatus::Ok)
        })
    }

    pub(super) fn extend(&mut self, now: DateTime<Utc>, id: Uuid, until: DateTime<Utc>) -> Expected {
        self.pass_to(now);
        if self.settlements.contains_key(&id) {
            return self.answer(ReplyStatus::Settled);
        }
        match self.holds.iter_mut().find(|hold| hold.id == id) {
            Some(hold) => {
                hold.expires_at = hold.expires_at.max(until);
                self.answer(ReplyStatus::Ok)
            }
            None => self.answer(ReplyStatus::Expired),
        }
    }

    /// `reservation` is the content of the client's id. A live hold may have newer data and takes precedence.
    /// `accepted_at`: when Postgres accepted the commit, if it did.
    pub(super) fn commit(
        &mut self,
        now: DateTime<Utc>,
        reservation: Hold,
        ap: u32,
        accepted_at: Option<DateTime<Utc>>,
    ) -> Expected {
        self.pass_to(now);
        match self.settlements.get(&reservation.id).copied() {
            Some(Settlement::Released) => return self.answer(ReplyStatus::Settled),
            Some(Settlement::Committed { ap: before, .. }) if before != ap => {
                return self.answer(ReplyStatus::Mismatch);
            }
            Some(Settlement::Committed { charged, late, .. }) => {
                return Expected {
                    replayed: true,
                    late,
                    charged,
                    overage: ap - charged,
                    ..self.answer(ReplyStatus::Ok)
                };
            }
            None => {}
        }
        let live = self.holds.iter().position(|hold| hold.id == reservation.id).map(|at| self.holds.remove(at));
        let made_at = accepted_at.unwrap_or(now);
        let late = live.is_none() && made_at >= reservation.expires_at;
        if live.is_none() && made_at > reservation.expires_at + SETTLE_WINDOW {
            return self.answer(ReplyStatus::Expired);
        }
        let hold = live.unwrap_or(reservation);
        let outlived_its_period = self.calendar.period_end(reservation.period) <= reservation.expires_at;
        let chargeable = match (late, hold.period == self.period) {
            (false, true) => self.free().max(hold.ap),
            (true, true) => self.free(),
            (false, false) => hold.ap,
            (true, false) if outlived_its_period => hold.ap,
            (true, false) => 0,
        };
        let charged = ap.min(chargeable);
        if hold.period == self.period {
            self.beyond += charged.saturating_sub(self.free());
        }
        self.charge(reservation.id, hold.period, charged, ap - charged);
        self.settlements.insert(reservation.id, Settlement::Committed { ap, charged, late });
        Expected { late, charged, overage: ap - charged, ..self.answer(ReplyStatus::Ok) }
    }

    pub(super) fn release(&mut self, now: DateTime<Utc>, reservation: Hold) -> Expected {
        self.pass_to(now);
        match self.settlements.get(&reservation.id) {
            Some(Settlement::Released) => return Expected { replayed: true, ..self.answer(ReplyStatus::Ok) },
            Some(Settlement::Committed { .. }) => return self.answer(ReplyStatus::Settled),
            None => {}
        }
        let live = self.holds.iter().position(|hold| hold.id == reservation.id).map(|at| self.holds.remove(at));
        if live.is_none() && now > reservation.expires_at + SETTLE_WINDOW {
            return Expected { replayed: true, ..self.answer(ReplyStatus::Ok) };
        }
        self.settlements.insert(reservation.id, Settlement::Released);
        self.answer(ReplyStatus::Ok)
    }

    pub(super) fn peek(&mut self, now: DateTime<Utc>) -> Expected {
        self.pass_to(now);
        self.answer(ReplyStatus::Ok)
    }

    pub(super) fn set_level(
        &mut self,
        now: DateTime<Utc>,
        level: LevelCode,
        pending: Option<LevelCode>,
        version: u32,
        (own_quota, blocked): (Option<u32>, bool),
    ) -> Expected {
        self.pass_to(now);
        if version > self.level_version {
            self.level = level;
            self.quota = own_quota.unwrap_or_else(|| self.quota_of(level));
            (self.own_quota, self.blocked) = (own_quota.is_some(), blocked);
            self.pending = pending;
            self.level_version = version;
        }
        self.answer(ReplyStatus::Ok)
    }

    pub(super) fn quota_of(&self, level: LevelCode) -> u32 {
        self.levels.coded(level).unwrap().quota.get()
    }

    /// Returns whether more is used and held than the quota and the commits that were accepted in time allow.
    pub(super) fn is_over_quota(&self) -> bool {
        self.used + self.held() > self.quota + self.beyond
    }

    fn pass_to(&mut self, now: DateTime<Utc>) {
        self.holds.retain(|hold| hold.expires_at > now);
        let (period, day) = (self.calendar.period_at(now), self.calendar.day_at(now));
        if period > self.period {
            self.period = period;
            self.used = 0;
            self.beyond = 0;
            self.level = self.pending.take().unwrap_or(self.level);
            if !self.own_quota {
                self.quota = self.quota_of(self.level);
            }
        }
        if day > self.day {
            self.day = day;
            self.used_today = 0;
        }
    }

    fn held(&self) -> u32 {
        self.holds.iter().filter(|hold| hold.period == self.period).map(|hold| hold.ap).sum()
    }

    fn free(&self) -> u32 {
        self.quota.saturating_sub(self.used + self.held())
    }

    fn charge(&mut self, id: Uuid, period: Period, ap: u32, overage: u32) {
        if period == self.period {
            self.used += ap;
        }
        self.total_used += u64::from(ap);
        self.used_today += ap;
        self.events.push(Event { id, period, ap, overage });
    }

    fn answer(&self, status: ReplyStatus) -> Expected {
        let numbers = Numbers {
            period: self.period,
            level: self.level,
            quota: self.quota,
            used: self.used,
            held: self.held(),
            total_used: self.total_used,
            used_today: self.used_today,
        };
        Expected { status, replayed: false, late: false, charged: 0, overage: 0, numbers }
    }

    /// Remembers a successful request under `key`. `what` stands for the rest of the request.
    fn keeping(
        &mut self,
        now: DateTime<Utc>,
        key: Option<&str>,
        what: u32,
        act: impl FnOnce(&mut Self) -> Expected,
    ) -> Expected {
        self.pass_to(now);
        if let Some((kept_what, until)) = key.and_then(|key| self.answers.get(key)).copied()
            && until > now.timestamp()
        {
            if kept_what != what {
                return self.answer(ReplyStatus::Mismatch);
            }
            return Expected { replayed: true, ..self.answer(ReplyStatus::Ok) };
        }
        let answer = act(self);
        if let (Some(key), ReplyStatus::Ok) = (key, answer.status) {
            self.answers.insert(key.to_owned(), (what, now.timestamp() + KEPT_SECONDS));
        }
        answer
    }
}
