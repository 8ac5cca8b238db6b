//! The model's windows, concurrency and grants, and its decision for users who have them.

use chrono::{DateTime, Utc};
use quota_gate::{
    domain::{
        ap::Ap,
        calendar::Day,
        clock::instant,
        grant::{Grant, GrantNumber, GrantPart, Grants},
        transfer::PartTerms,
        user_limits::WindowUsage,
        window::{LevelLimits, WindowCount, WindowKey, WindowState, WindowUnit},
    },
    store::redis::{ReplyStatus, Seed, UserLevel},
};
use uuid::Uuid;

use super::model::{Event, Expected, Hold, Model, ms};

pub(super) const NEVER_MS: u64 = u64::MAX;

/// A window that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunningWindow {
    pub key: WindowKey,
    pub start_ms: u64,
    pub used: u32,
}

/// A grant. The model keeps it when it has expired.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelGrant {
    pub number: u64,
    pub left: u32,
    pub expiry_ms: u64,
    pub priority: u8,
}

/// What answers have beyond the plain numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Limits {
    pub windows: Vec<WindowUsage>,
    pub concurrency: Option<u8>,
    pub live_holds: usize,
    pub grants: Grants,
    pub held_granted: u32,
    pub granted_free: u32,
}

/// What a charge takes from grants and counts in windows.
#[derive(Debug, Clone, Default)]
pub(super) struct Paid {
    pub plan: u32,
    pub grants: Vec<GrantPart>,
    pub windows: Vec<WindowCount>,
}

impl Paid {
    pub(super) fn granted(&self) -> u32 {
        self.grants.iter().map(|part| part.ap.get()).sum()
    }
}

impl Model {
    pub(super) fn level_limits(&self) -> LevelLimits {
        self.levels.coded(self.level).unwrap().limits.clone()
    }

    /// Whether the plan, grants and windows of requests allow a message.
    pub(super) fn admits(&self, cost: u32) -> bool {
        let limits = self.level_limits();
        let mut requests = limits.windows().iter().filter(|window| window.key.unit == WindowUnit::Requests);
        cost <= self.plan_free() + self.grant_free() && requests.all(|window| self.room(window.key, window.limit) > 0)
    }

    /// Charges a message that is admitted.
    pub(super) fn pay_message(&mut self, cost: u32) -> Paid {
        let plan = cost.min(self.plan_free());
        let windows = self.count_message(plan, false);
        let grants = self.take(cost - plan, None);
        Paid { plan, grants, windows }
    }

    /// Returns what grants are to pay of a hold that is admitted, and begins its windows.
    pub(super) fn split_hold(&mut self, cost: u32) -> u32 {
        let plan = cost.min(self.plan_free());
        self.count_message(plan, true);
        cost - plan
    }

    /// `is_over`: whether the hold gave its place back. `covered`: whether the plan pays its part in any case.
    pub(super) fn pay_commit(&mut self, ap: u32, hold: &Hold, live: bool, is_over: bool, covered: bool) -> Paid {
        let of_hold = hold.ap - hold.granted;
        let plan = if covered { ap.min(of_hold) } else { 0 };
        let mut grants = if live { self.take((ap - plan).min(hold.granted), Some(hold.made_ms)) } else { vec![] };
        let taken: u32 = grants.iter().map(|part| part.ap.get()).sum();
        let mut rest = ap - plan - taken;
        let limits = self.level_limits();
        let inside = |user: &Self, key| user.running(key).is_some_and(|w| !is_over && hold.made_ms >= w.start_ms);
        let is_inside: Vec<bool> = limits.windows().iter().map(|window| inside(self, window.key)).collect();
        let mut extra = 0;
        if hold.period == self.period {
            extra = rest.min(self.free().saturating_sub(plan));
            for (window, inside) in limits.windows().iter().zip(&is_inside) {
                if window.key.unit == WindowUnit::Ap {
                    let of_hold = if *inside { plan } else { 0 };
                    extra = extra.min(self.room(window.key, window.limit).saturating_sub(of_hold));
                }
            }
        } else if !live {
            rest -= ap.min(of_hold) - plan;
        }
        grants.extend(self.take((rest - extra).min(self.grant_free()), None));
        let mut windows = vec![];
        for (window, inside) in limits.windows().iter().zip(&is_inside) {
            let amount = match (window.key.unit, *inside) {
                (WindowUnit::Requests, inside) => u32::from(inside || !live),
                (WindowUnit::Ap, true) => plan + extra,
                (WindowUnit::Ap, false) => extra,
            };
            if amount > 0 {
                windows.extend(self.count(window.key, amount, *inside));
            }
        }
        Paid { plan: plan + extra, grants, windows }
    }

    /// Gives granted AP to another user: no hold needs them, and nothing of it counts as used.
    pub(super) fn transfer(&mut self, now: DateTime<Utc>, id: Uuid, ap: u32, key: &str) -> Expected {
        self.keeping(now, Some(key), ap, |user| {
            if user.blocked {
                return user.answer(ReplyStatus::Blocked);
            }
            if ap > user.grant_free() {
                return user.answer(ReplyStatus::Denied);
            }
            let before: Vec<Grant> = user.grants.iter().map(ModelGrant::grant).collect();
            let grants = user.take(ap, None);
            let source = |part: &GrantPart| before.iter().find(|grant| grant.number == part.number).unwrap();
            let terms = |grant: &Grant| PartTerms { expires_at: grant.expires_at, priority: grant.priority };
            let terms = grants.iter().map(source).map(terms).collect();
            let period = user.period;
            user.events.push(Event { id, period, ap: 0, overage: 0, begun_at: None, windows: vec![], grants, terms });
            user.written(ReplyStatus::Ok)
        })
    }

    pub(super) fn bring(&mut self, brought: &Grants) {
        for grant in &mut self.grants {
            if brought.live.iter().all(|listed| listed.number.get() != grant.number) {
                grant.expiry_ms = grant.expiry_ms.min(self.moment_ms);
            }
        }
        let known = self.grants_version;
        self.grants.extend(brought.live.iter().filter(|grant| grant.number.get() > known).map(ModelGrant::of));
        self.grants_version = brought.version;
    }

    pub(super) fn bring_grants(&mut self, now: DateTime<Utc>, grants: &Grants) -> Expected {
        self.pass_to(now);
        if grants.version <= self.grants_version {
            return self.answer(ReplyStatus::Ok);
        }
        if !self.is_extended {
            self.extend();
        }
        self.bring(grants);
        self.written(ReplyStatus::Ok)
    }

    /// The record was lost, and is made again from these windows and grants, and from an older record if one is left.
    /// The other numbers of a seed are those of the model.
    pub(super) fn seeded(&mut self, now: DateTime<Utc>, windows: &[WindowState], grants: &Grants, older: bool) {
        self.holds.clear();
        self.version = if older { self.version } else { 0 };
        if older {
            self.windows.retain(|window| window.used > 0);
            self.grants.retain(|known| known.left > 0);
        } else {
            self.windows = windows.iter().map(RunningWindow::of).collect();
        }
        let known = std::mem::take(&mut self.grants);
        let left = |number: u64| known.iter().find(|grant| grant.number == number).map_or(0, |grant| grant.left);
        self.grants = grants.live.iter().map(ModelGrant::of).collect();
        for grant in self.grants.iter_mut().filter(|grant| older && grant.number <= self.grants_version) {
            grant.left = grant.left.min(left(grant.number));
        }
        self.grants_version = grants.version;
        let newest = self.windows.iter().map(|window| window.start_ms).max().unwrap_or_default();
        self.version = self.version.max(newest.saturating_sub(1));
        self.now_ms = ms(now);
        self.moment_ms = self.now_ms.max(self.version + 1);
        self.end_windows();
        self.is_extended = !self.windows.is_empty() || self.grants_version > 0;
        self.written(ReplyStatus::Ok);
    }

    /// The seed of this state. A Postgres that lacks the last charges may lack all of this period.
    pub(super) fn seed(&self, day: Day, has_all: bool, windows: Vec<WindowState>, grants: Grants) -> Seed {
        let all = |ap: u32| Ap::new(if has_all { ap } else { 0 });
        Seed {
            level: UserLevel {
                period: self.period,
                anchor_day: self.anchor_day,
                level: self.level,
                quota: Ap::new(self.quota),
                own_quota: self.own_quota,
                blocked: self.blocked,
                pending: self.pending,
                level_version: self.level_version,
            },
            used: all(self.used),
            total_used: if has_all { self.total_used } else { 0 },
            day,
            used_today: all(self.used_today),
            windows,
            grants,
        }
    }

    pub(super) fn extend_for_windows(&mut self) {
        if !self.is_extended && !self.level_limits().windows().is_empty() {
            self.extend();
        }
    }

    fn extend(&mut self) {
        self.is_extended = true;
        self.moment_ms = self.now_ms.max(self.version + 1);
    }

    /// The record is written. Without windows and grants it has format 1, which does not say when holds were made.
    pub(super) fn written(&mut self, status: ReplyStatus) -> Expected {
        self.version = self.now_ms.max(self.version + 1);
        let has_windows =
            !self.windows.is_empty() || !self.level_limits().windows().is_empty() && !self.holds.is_empty();
        self.is_stored_extended = self.is_extended && (self.grants_version > 0 || has_windows);
        let answer = self.answer(status);
        if !self.is_stored_extended {
            self.holds.iter_mut().for_each(|hold| hold.made_ms = 0);
            self.windows.clear();
        }
        answer
    }

    pub(super) fn limits(&self) -> Limits {
        let limits = self.level_limits();
        if !self.is_extended && limits.is_empty() {
            return Limits::default();
        }
        let windows = limits.windows().iter().map(|window| {
            let running = self.running(window.key);
            WindowUsage {
                window: *window,
                start: running.map(|window| at(window.start_ms)),
                used: running.map_or(0, |window| window.used),
                held: running.map_or(0, |window| self.held_in(window)),
            }
        });
        let live = self.grants.iter().filter(|grant| grant.expiry_ms > self.moment_ms && grant.left > 0);
        let mut live: Vec<Grant> = live.map(ModelGrant::grant).collect();
        live.sort_by_key(|grant| grant.number);
        Limits {
            windows: windows.collect(),
            concurrency: limits.concurrency(),
            live_holds: self.holds.len(),
            grants: Grants { version: if self.is_extended { self.grants_version } else { 0 }, live },
            held_granted: self.holds.iter().map(|hold| hold.granted).sum(),
            granted_free: self.grant_free(),
        }
    }

    pub(super) fn end_windows(&mut self) {
        let now_ms = self.moment_ms;
        self.windows.retain(|window| now_ms < window.start_ms + u64::from(window.key.minutes()) * 60_000);
    }

    fn running(&self, key: WindowKey) -> Option<RunningWindow> {
        self.windows.iter().copied().find(|window| window.key == key)
    }

    fn held_in(&self, window: RunningWindow) -> u32 {
        let members = self.holds.iter().filter(|hold| hold.made_ms >= window.start_ms);
        members.map(|hold| if window.key.unit == WindowUnit::Ap { hold.ap - hold.granted } else { 1 }).sum()
    }

    fn room(&self, key: WindowKey, limit: u32) -> u32 {
        self.running(key).map_or(limit, |window| limit.saturating_sub(window.used + self.held_in(window)))
    }

    fn plan_free(&self) -> u32 {
        let limits = self.level_limits();
        let windows = limits.windows().iter().filter(|window| window.key.unit == WindowUnit::Ap);
        windows.map(|window| self.room(window.key, window.limit)).fold(self.free(), u32::min)
    }

    /// The most that a hold made now can get while every older hold stays covered (Hall's condition): another way than
    /// the script's.
    fn grant_free(&self) -> u32 {
        if !self.is_extended {
            return 0;
        }
        let free_since = |made_ms: u64| {
            let left = self.grants.iter().filter(|grant| grant.expiry_ms > made_ms).map(|grant| i64::from(grant.left));
            let needed = self.holds.iter().filter(|hold| hold.made_ms >= made_ms).map(|hold| i64::from(hold.granted));
            left.sum::<i64>() - needed.sum::<i64>()
        };
        let ages = self.holds.iter().filter(|hold| hold.granted > 0).map(|hold| hold.made_ms);
        let free = ages.chain([self.moment_ms]).map(free_since).min().unwrap();
        assert!(free >= 0, "a hold is not covered");
        u32::try_from(free).unwrap()
    }

    fn take(&mut self, ap: u32, made_ms: Option<u64>) -> Vec<GrantPart> {
        let now_ms = self.moment_ms;
        let mut usable: Vec<&mut ModelGrant> = self
            .grants
            .iter_mut()
            .filter(|grant| grant.expiry_ms > now_ms || made_ms.is_some_and(|made_ms| made_ms < grant.expiry_ms))
            .collect();
        usable.sort_by_key(|grant| {
            let is_live = grant.expiry_ms > now_ms;
            (is_live, if is_live { grant.priority } else { 0 }, grant.expiry_ms, grant.number)
        });
        let (mut rest, mut parts) = (ap, vec![]);
        for grant in usable {
            let took = rest.min(grant.left);
            (grant.left, rest) = (grant.left - took, rest - took);
            if took > 0 {
                parts.push(GrantPart { number: GrantNumber::new(grant.number).unwrap(), ap: Ap::new(took) });
            }
        }
        assert_eq!(rest, 0, "grants do not cover what was promised");
        parts
    }

    fn count_message(&mut self, plan: u32, is_hold: bool) -> Vec<WindowCount> {
        let mut counts = vec![];
        for window in self.level_limits().windows() {
            let amount = if window.key.unit == WindowUnit::Ap { plan } else { 1 };
            if amount > 0 {
                counts.extend(self.count(window.key, if is_hold { 0 } else { amount }, false));
            }
        }
        counts
    }

    fn count(&mut self, key: WindowKey, amount: u32, inside: bool) -> Option<WindowCount> {
        let is_empty = self.running(key).is_none_or(|window| !inside && window.used + self.held_in(window) == 0);
        if is_empty {
            self.windows.retain(|window| window.key != key);
            self.windows.push(RunningWindow { key, start_ms: self.moment_ms, used: 0 });
        }
        let window = self.windows.iter_mut().find(|window| window.key == key).unwrap();
        window.used += amount;
        (amount > 0).then(|| WindowCount { key, start: at(window.start_ms), counted: amount })
    }
}

impl RunningWindow {
    pub(super) fn of(state: &WindowState) -> Self {
        Self { key: state.key, start_ms: state.start.timestamp_millis().unsigned_abs(), used: state.used }
    }
}

impl ModelGrant {
    pub(super) fn of(grant: &Grant) -> Self {
        let expiry_ms = grant.expires_at.map_or(NEVER_MS, |expiry| expiry.timestamp_millis().unsigned_abs());
        Self { number: grant.number.get(), left: grant.left.get(), expiry_ms, priority: grant.priority }
    }

    fn grant(&self) -> Grant {
        Grant {
            number: GrantNumber::new(self.number).unwrap(),
            left: Ap::new(self.left),
            expires_at: (self.expiry_ms != NEVER_MS).then(|| at(self.expiry_ms)),
            priority: self.priority,
        }
    }
}

pub(super) fn at(unix_ms: u64) -> DateTime<Utc> {
    instant(i64::try_from(unix_ms).unwrap())
}
