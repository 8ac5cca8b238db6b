//! What would let a denied message pass: waiting, a cheaper model, a pack, or a higher level.
//!
//! Each remedy is tried on the user's numbers by the rule that denied the message, so one that is named does let this
//! very message pass, if nothing else happens before.

use chrono::{DateTime, Utc};

use super::{
    ap::Ap,
    calendar::Calendar,
    decision::Denied,
    grant::{GRANTS_PER_USER_MAX, Grant, GrantNumber},
    level::{Level, LevelCode, LevelTerms, Levels},
    meter::MeterCode,
    model_costs::ModelCosts,
    quota::Quota,
    user_limits::WindowUsage,
    window::Window,
};

/// One way to send a denied message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy<'a> {
    /// Send it at this time.
    Wait(DateTime<Utc>),
    /// Send it to this model, which costs less.
    Model {
        /// The model.
        name: &'a str,
        /// Cost of the message with it.
        ap: Ap,
    },
    /// Buy this pack first.
    Pack(&'a OfferedPack),
    /// Change to this level first.
    Level {
        /// The level.
        level: &'a Level,
        /// Its quota on the meter of the message.
        quota: Ap,
    },
}

/// A pack that users may buy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedPack {
    /// Name of the price, product or lookup key in the billing system.
    pub name: String,
    /// AP that it gives.
    pub ap: Ap,
}

/// What is on offer.
#[derive(Debug, Clone, Copy)]
pub struct Offers<'a> {
    /// Models and their costs.
    pub costs: &'a ModelCosts,
    /// Packs.
    pub packs: &'a [OfferedPack],
    /// Levels.
    pub levels: &'a Levels,
    /// The meter of the message.
    pub meter: MeterCode,
}

/// What a message asked for, beside its cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Models that may answer it.
    pub models: &'a [String],
    /// Answers for which the model's price was charged; none if the cost does not come from a model's price.
    pub priced_answers: Option<u32>,
}

impl Denied {
    /// At most one remedy of each kind, the smallest of its kind, in this order: waiting; the dearest model that costs
    /// less; the smallest pack; the lowest level. None for a blocked user.
    #[must_use]
    pub fn remedies<'a>(&self, asked: Asked<'_>, offers: Offers<'a>, calendar: Calendar) -> Vec<Remedy<'a>> {
        if self.quota.blocked {
            return Vec::new();
        }
        let wait = self.retry_at(calendar).map(Remedy::Wait);
        let remedies = [wait, self.model(asked, offers), self.pack(offers.packs), self.level(asked, offers)];
        remedies.into_iter().flatten().collect()
    }

    fn model<'a>(&self, asked: Asked<'_>, offers: Offers<'a>) -> Option<Remedy<'a>> {
        let answers = asked.priced_answers?;
        let level = offers.levels.coded(self.quota.level)?.name.as_str();
        let models = offers.costs.flat().filter(|(name, _)| offers.costs.allows(level, name));
        let costs = models.map(|(name, ap)| (name, Ap::new(ap.get().saturating_mul(answers))));
        let fitting = costs.filter(|(_, ap)| *ap < self.required && self.quota.admits(*ap, self.occupies));
        // Of models that cost the same, the first by name.
        fitting.min_by_key(|(name, ap)| (std::cmp::Reverse(*ap), *name)).map(|(name, ap)| Remedy::Model { name, ap })
    }

    fn pack<'a>(&self, packs: &'a [OfferedPack]) -> Option<Remedy<'a>> {
        if self.quota.limits.grants.live.len() >= GRANTS_PER_USER_MAX {
            return None;
        }
        let fitting = packs.iter().filter(|pack| self.quota.with_pack(pack.ap).admits(self.required, self.occupies));
        fitting.min_by_key(|pack| (pack.ap, &pack.name)).map(Remedy::Pack)
    }

    fn level<'a>(&self, asked: Asked<'_>, offers: Offers<'a>) -> Option<Remedy<'a>> {
        let terms_of = |level: &'a Level| Some((level, offers.levels.terms_on(offers.meter, level.code)?));
        let (current, now) = terms_of(offers.levels.coded(self.quota.level)?)?;
        let others = offers.levels.iter().filter(|level| level.code != current.code).filter_map(terms_of);
        let includes = |level: &Level| asked.models.iter().all(|model| offers.costs.allows(level.name.as_str(), model));
        let admits = |code, terms: &LevelTerms| self.quota.at_level(code, terms).admits(self.required, self.occupies);
        let fitting =
            others.filter(|(level, terms)| terms.quota >= now.quota && includes(level) && admits(level.code, terms));
        let lowest = fitting.min_by_key(|(_, terms)| terms.quota);
        lowest.map(|(level, terms)| Remedy::Level { level, quota: terms.quota })
    }
}

impl Quota {
    /// With one more grant.
    fn with_pack(&self, ap: Ap) -> Self {
        let mut quota = self.clone();
        // Any number: only what is left counts.
        let number = GrantNumber::new(1).expect("a number");
        quota.limits.grants.live.push(Grant { number, left: ap, expires_at: None, priority: 0 });
        quota.limits.granted_free = quota.limits.granted_free.saturating_add(ap);
        quota
    }

    /// After a change to this level, effective immediately. An own quota stays. Windows of the same length and unit
    /// keep what they have counted; others have not begun.
    fn at_level(&self, level: LevelCode, terms: &LevelTerms) -> Self {
        let mut quota = self.clone();
        quota.level = level;
        if !self.own_quota {
            quota.quota = terms.quota;
        }
        let counted = |key| self.limits.windows.iter().find(move |usage| usage.window.key == key);
        let usage = |window: &Window| match counted(window.key) {
            Some(usage) => WindowUsage { window: *window, ..*usage },
            None => WindowUsage { window: *window, start: None, used: 0, held: 0 },
        };
        quota.limits.windows = terms.limits.windows().iter().map(usage).collect();
        quota.limits.concurrency = terms.limits.concurrency();
        // Redis counts live holds only for users who have limits.
        if !self.limits.binds() && self.held.saturating_add(self.limits.held_granted) > Ap::ZERO {
            quota.limits.live_holds = u8::MAX;
        }
        quota
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::{
        level::{LevelCode, LevelName},
        user_limits::{Occupies, UserLimits},
        window::LevelLimits,
    };

    fn level(code: u8, name: &str, quota: u32, windows: &str, concurrency: Option<u8>) -> Level {
        let (code, name) = (LevelCode::new(code).unwrap(), LevelName::parse(name).unwrap());
        let limits = LevelLimits::parse(windows, concurrency).unwrap();
        Level { code, name, quota: Ap::new(quota), limits, retired: false }
    }

    /// Free has every kind of limit, plus has more, pro has only a quota.
    fn levels() -> Levels {
        let free = level(1, "free", 100, "5h ap 50, 5h requests 3", Some(1));
        Levels::new(1, vec![free, level(2, "plus", 300, "5h ap 60", Some(2)), level(3, "pro", 1_000, "", None)])
            .unwrap()
    }

    fn costs() -> ModelCosts {
        let costs = [("default", 1), ("zero", 0), ("mini", 2), ("mini-2", 2), ("large", 30), ("mega-*", 1)];
        let costs = ModelCosts::new(&costs.map(|(name, ap)| (name.to_owned(), ap)).into()).unwrap();
        let free = (LevelName::parse("free").unwrap(), ["mini", "mini-2", "large"].map(ToOwned::to_owned).to_vec());
        costs.level_models(&[free].into()).unwrap()
    }

    fn packs() -> [OfferedPack; 3] {
        [("big", 500), ("small", 20), ("small-too", 20)]
            .map(|(name, ap)| OfferedPack { name: name.into(), ap: Ap::new(ap) })
    }

    /// A user of the level free, in the middle of November.
    fn quota(used: u32, in_window: u32, requests: u32, live_holds: u8) -> Quota {
        let as_of: DateTime<Utc> = "2026-11-15T12:00:00Z".parse().unwrap();
        let start = Some(as_of - TimeDelta::hours(1));
        let levels = levels();
        let usage = |(window, used): (&Window, u32)| WindowUsage { window: *window, start, used, held: 0 };
        Quota {
            as_of,
            limits: UserLimits {
                windows: levels.lowest().limits.windows().iter().zip([in_window, requests]).map(usage).collect(),
                concurrency: Some(1),
                live_holds,
                hold_ends_at: (live_holds > 0).then(|| as_of + TimeDelta::minutes(1)),
                ..UserLimits::default()
            },
            ..crate::domain::quota::tests::quota(100, used, 0)
        }
    }

    fn with_grant(mut quota: Quota, left: u32, expires_after: Option<TimeDelta>) -> Quota {
        let expires_at = expires_after.map(|after| quota.as_of + after);
        let number = GrantNumber::new(1).unwrap();
        quota.limits.grants.live.push(Grant { number, left: Ap::new(left), expires_at, priority: 100 });
        quota.limits.granted_free = Ap::new(left);
        quota
    }

    fn remedies_of(quota: &Quota, required: u32, occupies: Occupies, asked: Asked<'_>) -> Vec<String> {
        let denied = Denied { required: Ap::new(required), quota: quota.clone(), occupies };
        let (costs, packs, levels) = (costs(), packs(), levels());
        let offers = Offers { costs: &costs, packs: &packs, levels: &levels, meter: MeterCode::CHAT };
        let remedies = denied.remedies(asked, offers, Calendar::new(chrono_tz::Tz::UTC));
        remedies.iter().map(text).collect()
    }

    fn text(remedy: &Remedy<'_>) -> String {
        match remedy {
            Remedy::Wait(at) => at.format("%m-%d %H:%M").to_string(),
            Remedy::Model { name, ap } => format!("{name} {ap}"),
            Remedy::Pack(pack) => format!("{} {}", pack.name, pack.ap),
            Remedy::Level { level, .. } => level.name.to_string(),
        }
    }

    const PRICED: Asked<'_> = Asked { models: &[], priced_answers: Some(1) };

    #[test]
    fn the_smallest_remedy_of_each_kind_is_named_in_order() {
        let quota = quota(45, 45, 1, 0);
        assert_eq!(
            remedies_of(&quota, 10, Occupies::Nothing, PRICED),
            ["11-15 16:00", "mini 2", "small 20", "plus"],
            "zero is not a model of the level, mega-* is a pattern"
        );
        let two = Asked { priced_answers: Some(2), ..PRICED };
        assert_eq!(remedies_of(&quota, 60, Occupies::Nothing, two), ["mini 4", "big 500", "pro"], "two answers cost 4");
        let unpriced = Asked::default();
        assert_eq!(remedies_of(&quota, 10, Occupies::Nothing, unpriced)[1], "small 20", "no model is known");
    }

    #[test]
    fn nothing_that_costs_ap_helps_against_a_limit_of_requests_or_holds() {
        assert_eq!(remedies_of(&quota(0, 0, 3, 0), 1, Occupies::Nothing, PRICED), ["11-15 16:00", "plus"]);
        assert_eq!(remedies_of(&quota(0, 0, 0, 1), 1, Occupies::Hold, PRICED), ["11-15 12:01", "plus"]);
    }

    #[test]
    fn waiting_ends_when_all_limits_allow_the_message_together() {
        // The window ends today. The quota is reset in December, and the grant that would help has expired by then.
        let mut quota = with_grant(quota(100, 50, 0, 0), 5, Some(TimeDelta::days(7)));
        assert_eq!(remedies_of(&quota, 10, Occupies::Nothing, Asked::default())[0], "12-01 00:00");
        quota.used = Ap::new(40);
        assert_eq!(remedies_of(&quota, 52, Occupies::Nothing, Asked::default())[0], "11-15 16:00", "with the grant");
        quota.used = Ap::new(60);
        assert_eq!(remedies_of(&quota, 52, Occupies::Nothing, Asked::default())[0], "big 500", "it expires before");
    }

    #[test]
    fn a_level_must_include_the_models_and_an_own_quota_stays() {
        let models = ["large".to_owned()];
        let mut quota = quota(100, 0, 0, 0);
        assert_eq!(remedies_of(&quota, 30, Occupies::Nothing, Asked { models: &models, ..PRICED })[2], "plus");
        quota.own_quota = true;
        assert_eq!(remedies_of(&quota, 30, Occupies::Nothing, PRICED), ["12-01 00:00", "big 500"]);
    }

    #[test]
    fn a_blocked_user_has_no_remedy_and_no_pack_helps_a_user_with_as_many_grants_as_possible() {
        let blocked = Quota { blocked: true, ..quota(100, 0, 0, 0) };
        assert!(remedies_of(&blocked, 1, Occupies::Nothing, PRICED).is_empty());
        let mut full = quota(100, 0, 0, 0);
        full.limits.grants.live =
            vec![Grant { left: Ap::ZERO, ..with_grant(full.clone(), 0, None).limits.grants.live[0] }; 32];
        assert_eq!(remedies_of(&full, 1, Occupies::Nothing, PRICED), ["12-01 00:00", "plus"]);
    }

    /// Users with all kinds of numbers.
    fn users() -> Vec<Quota> {
        let numbers = [0, 60, 95, 100].into_iter().flat_map(|used| [0, 30, 48, 50].map(|in_window| (used, in_window)));
        let numbers = numbers.flat_map(|(used, in_window)| [0, 3].map(|requests| (used, in_window, requests)));
        let users =
            numbers.flat_map(|(used, in_window, requests)| [0, 1].map(|live| quota(used, in_window, requests, live)));
        let granted = |user: Quota| [0, 5, 40].map(|left| with_grant(user.clone(), left, Some(TimeDelta::days(2))));
        users.flat_map(granted).collect()
    }

    fn denials() -> impl Iterator<Item = Denied> {
        let costs = [0, 1, 3, 30, 45, 52, 120, 2_000].map(Ap::new);
        let messages = costs.into_iter().flat_map(|ap| [(ap, Occupies::Nothing), (ap, Occupies::Hold)]);
        let all = users().into_iter().flat_map(move |quota| {
            messages.clone().map(move |(required, occupies)| Denied { required, quota: quota.clone(), occupies })
        });
        all.filter(|message| !message.quota.admits(message.required, message.occupies))
    }

    /// Applies each remedy to the numbers, and decides again.
    #[test]
    fn every_remedy_that_is_named_admits_the_message_and_is_the_smallest() {
        let (costs, packs, levels, calendar) = (costs(), packs(), levels(), Calendar::new(chrono_tz::Tz::UTC));
        let offers = Offers { costs: &costs, packs: &packs, levels: &levels, meter: MeterCode::CHAT };
        let mut named = [0; 4];
        for denied in denials() {
            let Denied { required, ref quota, occupies } = denied;
            let end = calendar.period_end(quota.period, quota.anchor_day);
            for remedy in denied.remedies(PRICED, offers, calendar) {
                let (kind, admits) = match remedy {
                    Remedy::Wait(at) => {
                        let before = quota.at(at - TimeDelta::milliseconds(1), end);
                        assert!(!before.admits(required, occupies), "{denied:?} {at}");
                        (0, quota.at(at, end).admits(required, occupies))
                    }
                    Remedy::Model { name, ap } => {
                        assert!(costs.allows("free", name) && ap < required, "{denied:?} {name}");
                        (1, quota.admits(ap, occupies))
                    }
                    Remedy::Pack(pack) => {
                        let short = denied.shortfall();
                        assert!(
                            packs.iter().all(|other| other.ap >= pack.ap || other.ap < short),
                            "{denied:?} {pack:?}"
                        );
                        (2, pack.ap >= short)
                    }
                    Remedy::Level { level, .. } => {
                        let mut lower = levels.iter().take_while(|lower| lower.code != level.code).skip(1);
                        let admitting =
                            |lower: &Level| quota.at_level(lower.code, &lower.terms()).admits(required, occupies);
                        assert!(!lower.any(admitting), "{denied:?} {level:?}");
                        (3, quota.at_level(level.code, &level.terms()).admits(required, occupies))
                    }
                };
                assert!(admits, "{denied:?} {kind}");
                named[kind] += 1;
            }
        }
        assert!(named.iter().all(|times| *times > 50), "{named:?}");
    }
}
