//! A model of the script: one user's state and all operations on it, in the simplest Rust.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use quota_gate::{
    domain::{
        calendar::{AnchorDay, Calendar, Day, Period},
        grant::GrantPart,
        hold::{HOLDS_PER_USER_MAX, SETTLE_WINDOW},
        level::{LevelCode, Levels},
        transfer::PartTerms,
        window::WindowCount,
    },
    store::redis::ReplyStatus,
};
use uuid::Uuid;

use super::plans::{Limits, ModelGrant, Paid, RunningWindow, at};

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
    /// AP of grants, and when the hold was made.
    pub parts: (u32, Option<DateTime<Utc>>),
    pub numbers: Numbers,
    pub limits: Limits,
}

/// The user's numbers in every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub period: Period,
    pub anchor_day: AnchorDay,
    pub level: LevelCode,
    pub quota: u32,
    pub used: u32,
    pub held: u32,
    pub total_used: u64,
    pub used_today: u32,
}

/// A charge expected in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub id: Uuid,
    pub period: Period,
    pub ap: u32,
    pub overage: u32,
    pub begun_at: Option<DateTime<Utc>>,
    pub windows: Vec<WindowCount>,
    pub grants: Vec<GrantPart>,
    /// Terms of the parts, of a transfer.
    pub terms: Vec<PartTerms>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub id: Uuid,
    pub ap: u32,
    /// AP of it that grants are to pay.
    pub granted: u32,
    pub period: Period,
    /// When it was made; 0 if the record does not say so.
    pub made_ms: u64,
    pub expires_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy)]
enum Settlement {
    Committed { ap: u32, charged: u32, late: bool },
    Released,
}

/// The state of one user.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
pub(super) struct Model {
    calendar: Calendar,
    pub(super) levels: Levels,
    pub(super) period: Period,
    pub(super) anchor_day: AnchorDay,
    pub(super) level: LevelCode,
    pub(super) quota: u32,
    /// Whether `quota` is the user's own.
    pub(super) own_quota: bool,
    pub(super) blocked: bool,
    pub(super) pending: Option<LevelCode>,
    pub(super) level_version: u32,
    pub(super) used: u32,
    pub(super) total_used: u64,
    day: Day,
    pub(super) used_today: u32,
    /// AP of this period that accepted commits charged although the AP of their holds had been used again.
    beyond: u32,
    pub(super) holds: Vec<Hold>,
    pub(super) windows: Vec<RunningWindow>,
    pub(super) grants: Vec<ModelGrant>,
    pub(super) grants_version: u64,
    /// The record's version, in ms.
    pub(super) version: u64,
    /// Whether the stored record has format 2, and whether the running operation goes on in format 2.
    pub(super) is_stored_extended: bool,
    pub(super) is_extended: bool,
    /// Time of the running operation.
    pub(super) moment_ms: u64,
    pub(super) now_ms: u64,
    settlements: HashMap<Uuid, Settlement>,
    /// What was requested under a key, and until when that is remembered, in Unix seconds.
    answers: HashMap<String, (u32, i64)>,
    pub(super) events: Vec<Event>,
}

impl Model {
    pub(super) fn new(calendar: Calendar, levels: Levels, now: DateTime<Utc>, level: LevelCode) -> Self {
        let lowest = levels.coded(level).unwrap().clone();
        Self {
            calendar,
            levels,
            period: calendar.month_at(now),
            anchor_day: AnchorDay::FIRST,
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
            windows: vec![],
            grants: vec![],
            grants_version: 0,
            version: ms(now),
            is_stored_extended: false,
            is_extended: false,
            moment_ms: ms(now),
            now_ms: ms(now),
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
            if !user.allows(cost) {
                return user.answer(ReplyStatus::Denied);
            }
            let paid = if user.is_extended { user.pay_message(cost) } else { Paid { plan: cost, ..Paid::default() } };
            user.charge(id, user.period, 0, None, paid);
            user.written(ReplyStatus::Ok)
        })
    }

    pub(super) fn reserve(
        &mut self,
        now: DateTime<Utc>,
        (id, ap, ttl): (Uuid, u32, TimeDelta),
        key: Option<&str>,
    ) -> Expected {
        self.keeping(now, key, ap, |user| {
            if user.blocked {
                return user.answer(ReplyStatus::Blocked);
            }
            let concurrency = user.level_limits().concurrency().map_or(usize::MAX, usize::from);
            if !user.allows(ap) || user.holds.len() >= concurrency {
                return user.answer(ReplyStatus::Denied);
            }
            if user.holds.len() >= HOLDS_PER_USER_MAX {
                return user.answer(ReplyStatus::TooManyHolds);
            }
            let (mut granted, mut made_ms) = (0, 0);
            if user.is_extended {
                (granted, made_ms) = (user.split_hold(ap), user.moment_ms);
            }
            let (period, expires_at) = (user.period, at(user.moment_ms) + ttl);
            user.holds.push(Hold { id, ap, granted, period, made_ms, expires_at });
            Expected { parts: (granted, (made_ms > 0).then(|| at(made_ms))), ..user.written(ReplyStatus::Ok) }
        })
    }

    pub(super) fn extend_hold(&mut self, now: DateTime<Utc>, id: Uuid, ttl: TimeDelta) -> Expected {
        self.pass_to(now);
        if self.settlements.contains_key(&id) {
            return self.answer(ReplyStatus::Settled);
        }
        match self.holds.iter_mut().find(|hold| hold.id == id) {
            Some(hold) => {
                hold.expires_at = hold.expires_at.max(at(self.moment_ms) + ttl);
                self.written(ReplyStatus::Ok)
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
        let live = self.take_hold(reservation.id);
        let made_at = accepted_at.unwrap_or(now);
        let late = live.is_none() && made_at >= reservation.expires_at;
        // Expired, or lost with its record: it gave its place back, unless Postgres accepted the commit in time.
        let is_over = live.is_none() && (late || accepted_at.is_none());
        if live.is_none() && made_at > reservation.expires_at + SETTLE_WINDOW {
            return self.answer(ReplyStatus::Expired);
        }
        let hold = live.unwrap_or(reservation);
        // The user's next period began while the hold was to live.
        let outlived_its_period = self.calendar.period_start(self.period) <= reservation.expires_at;
        let covered = !is_over || hold.period != self.period && outlived_its_period;
        let (free, in_plan) = (self.free(), hold.ap - hold.granted);
        let chargeable = match (is_over, hold.period == self.period) {
            (false, true) => free.max(in_plan),
            (true, true) => free,
            (false, false) => in_plan,
            (true, false) if outlived_its_period => in_plan,
            (true, false) => 0,
        };
        let paid = if self.is_extended {
            self.pay_commit(ap, &hold, live.is_some(), is_over, covered)
        } else {
            Paid { plan: ap.min(chargeable), ..Paid::default() }
        };
        if hold.period == self.period {
            self.beyond += paid.plan.saturating_sub(free);
        }
        let (granted, charged) = (paid.granted(), paid.plan + paid.granted());
        let begun_at = (self.is_extended && hold.made_ms > 0).then(|| at(hold.made_ms));
        self.charge(reservation.id, hold.period, ap - charged, begun_at, paid);
        self.settlements.insert(reservation.id, Settlement::Committed { ap, charged, late });
        let parts = (granted, begun_at);
        Expected { late, charged, overage: ap - charged, parts, ..self.written(ReplyStatus::Ok) }
    }

    pub(super) fn release(&mut self, now: DateTime<Utc>, reservation: Hold) -> Expected {
        self.pass_to(now);
        match self.settlements.get(&reservation.id) {
            Some(Settlement::Released) => return Expected { replayed: true, ..self.answer(ReplyStatus::Ok) },
            Some(Settlement::Committed { .. }) => return self.answer(ReplyStatus::Settled),
            None => {}
        }
        let live = self.take_hold(reservation.id);
        if live.is_none() && now > reservation.expires_at + SETTLE_WINDOW {
            return Expected { replayed: true, ..self.answer(ReplyStatus::Ok) };
        }
        self.settlements.insert(reservation.id, Settlement::Released);
        if live.is_some() { self.written(ReplyStatus::Ok) } else { self.answer(ReplyStatus::Ok) }
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
        (period, anchor_day): (Period, AnchorDay),
        (own_quota, blocked): (Option<u32>, bool),
    ) -> Expected {
        self.pass_to(now);
        if version > self.level_version {
            self.anchor_day = anchor_day;
            if period > self.period {
                self.begin(period);
            }
            self.level = level;
            self.quota = own_quota.unwrap_or_else(|| self.quota_of(level));
            (self.own_quota, self.blocked) = (own_quota.is_some(), blocked);
            self.pending = pending;
            self.level_version = version;
            self.extend_for_windows();
            return self.written(ReplyStatus::Ok);
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

    /// The user's period at this time, and its end.
    pub(super) fn period_at(&self, now: DateTime<Utc>) -> (Period, DateTime<Utc>) {
        let period = self.period.at(self.calendar.day_at(now), self.anchor_day);
        (period, self.calendar.period_end(period, self.anchor_day))
    }

    fn begin(&mut self, period: Period) {
        self.period = period;
        self.used = 0;
        self.beyond = 0;
    }

    pub(super) fn pass_to(&mut self, now: DateTime<Utc>) {
        self.now_ms = ms(now);
        let record_ms = self.now_ms.max(self.version + 1);
        let expire_ms = if self.is_stored_extended { record_ms } else { self.now_ms };
        self.holds.retain(|hold| ms(hold.expires_at) > expire_ms);
        let (period, day) = (self.period_at(now).0, self.calendar.day_at(now));
        if period > self.period {
            self.begin(period);
            self.level = self.pending.take().unwrap_or(self.level);
            if !self.own_quota {
                self.quota = self.quota_of(self.level);
            }
        }
        if day > self.day {
            self.day = day;
            self.used_today = 0;
        }
        self.is_extended = self.is_stored_extended;
        self.moment_ms = expire_ms;
        self.extend_for_windows();
        if self.is_extended {
            self.end_windows();
        }
    }

    fn take_hold(&mut self, id: Uuid) -> Option<Hold> {
        self.holds.iter().position(|hold| hold.id == id).map(|at| self.holds.remove(at))
    }

    fn allows(&self, cost: u32) -> bool {
        if self.is_extended { self.admits(cost) } else { cost <= self.free() }
    }

    fn held(&self) -> u32 {
        self.holds.iter().filter(|hold| hold.period == self.period).map(|hold| hold.ap - hold.granted).sum()
    }

    pub(super) fn free(&self) -> u32 {
        self.quota.saturating_sub(self.used + self.held())
    }

    fn charge(&mut self, id: Uuid, period: Period, overage: u32, begun_at: Option<DateTime<Utc>>, paid: Paid) {
        let ap = paid.plan + paid.granted();
        if period == self.period {
            self.used += paid.plan;
        }
        self.total_used += u64::from(ap);
        self.used_today += ap;
        let Paid { windows, grants, .. } = paid;
        self.events.push(Event { id, period, ap, overage, begun_at, windows, grants, terms: vec![] });
    }

    pub(super) fn answer(&self, status: ReplyStatus) -> Expected {
        let numbers = Numbers {
            period: self.period,
            anchor_day: self.anchor_day,
            level: self.level,
            quota: self.quota,
            used: self.used,
            held: self.held(),
            total_used: self.total_used,
            used_today: self.used_today,
        };
        let parts = (0, None);
        Expected { status, replayed: false, late: false, charged: 0, overage: 0, parts, numbers, limits: self.limits() }
    }

    /// Remembers a successful request under `key`. `what` stands for the rest of the request.
    pub(super) fn keeping(
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

pub(super) fn ms(at: DateTime<Utc>) -> u64 {
    at.timestamp_millis().unsigned_abs()
}
