//! Replays messages, user by user in order of time, with the state of one user at a time.
//!
//! A message is allowed if its whole cost fits, and counts only if it is allowed. A message that has overage in the log
//! was admitted with less than it cost: it is allowed if the charged part fits, and is charged as far as it fits. What
//! grants paid of a message, they pay again, up to its cost: the quota and the windows do not count it.

use super::{
    AffectedUser, LevelReport, LoggedMessage, Prices, Proposal, Report, Sums,
    allowance::{Allowance, Binding, Demand},
    most_affected::MostAffected,
};
use crate::domain::{calendar::Calendar, clock::instant, level::LevelTerms, model_costs::ModelPrice};

/// A running replay.
#[derive(Debug)]
pub struct Simulation {
    /// The first of the levels in the report, in the same order.
    terms: Vec<LevelTerms>,
    prices: Option<Prices>,
    calendar: Calendar,
    /// Earlier messages use up limits, and are not in the result.
    counted_from_ms: i64,
    current: CurrentUser,
    levels: Vec<LevelReport>,
    total: Sums,
    most_affected: MostAffected,
    tokens_as_output: u64,
    tokens_unknown: u64,
}

/// The user whose messages are being replayed.
#[derive(Debug, Default)]
struct CurrentUser {
    id: String,
    allowance: Allowance,
    /// By the levels that the user has had, most often one.
    levels: Vec<LevelUse>,
    /// Time and level of the first denial.
    first_denial: Option<(i64, usize)>,
}

/// A user's messages at one level.
#[derive(Debug)]
struct LevelUse {
    level: usize,
    sums: Sums,
    /// Denied messages by limit.
    denied_by: Vec<u64>,
}

impl Simulation {
    /// Begins a replay that lists this many users. Messages before `counted_from_ms` use up limits only.
    #[must_use]
    pub fn new(proposal: Proposal, calendar: Calendar, counted_from_ms: i64, listed_users_max: usize) -> Self {
        let (levels, prices) = proposal.into_parts();
        Self {
            levels: levels.iter().map(|(name, terms)| LevelReport::new(name, terms)).collect(),
            terms: levels.into_iter().map(|(_, terms)| terms).collect(),
            prices,
            calendar,
            counted_from_ms,
            current: CurrentUser::default(),
            total: Sums::default(),
            most_affected: MostAffected::new(listed_users_max),
            tokens_as_output: 0,
            tokens_unknown: 0,
        }
    }

    /// Replays a message. All messages of a user follow each other, in order of time.
    pub fn add(&mut self, message: &LoggedMessage<'_>) {
        if self.current.id != message.user {
            self.end_user();
            self.current.id.push_str(message.user);
        }
        let level = self.level(message.level);
        let is_counted = message.at_ms >= self.counted_from_ms;
        let (cost, decided) = match self.cost(message, is_counted) {
            Some(cost) => {
                let needed = if message.overage > 0 { cost.min(message.ap) } else { cost };
                let granted = cost.min(message.granted);
                let (needed, of_plan) = (needed.saturating_sub(granted), cost - granted);
                let demand = Demand { at_ms: message.at_ms, period: message.period, needed, cost: of_plan };
                let charged = self.current.allowance.decide(self.terms.get(level), demand);
                (cost, charged.map(|of_plan| of_plan + granted))
            }
            None => (message.cost(), Err(Binding::MODEL)),
        };
        if is_counted {
            self.count(message, level, cost, decided);
        }
    }

    /// Ends the replay.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.end_user();
        Report {
            levels: self.levels,
            total: self.total,
            most_affected: self.most_affected.finish(),
            tokens_as_output: self.tokens_as_output,
            tokens_unknown: self.tokens_unknown,
        }
    }

    /// What the message costs under the proposal; none if its model is refused.
    fn cost(&mut self, message: &LoggedMessage<'_>, is_counted: bool) -> Option<u32> {
        let Some(prices) = &mut self.prices else { return Some(message.cost()) };
        Some(match prices.of(message)? {
            ModelPrice::Flat(ap) => ap.get(),
            ModelPrice::Tokens(prices) => {
                let is_unknown = message.tokens.is_total && message.tokens.output == 0;
                self.tokens_unknown += u64::from(is_counted && is_unknown);
                self.tokens_as_output += u64::from(is_counted && message.tokens.is_total && !is_unknown);
                prices.cost(message.tokens.kinds()).get()
            }
        })
    }

    fn count(&mut self, message: &LoggedMessage<'_>, level: usize, cost: u32, decided: Result<u32, Binding>) {
        let limits = self.levels[level].limits.len();
        let mine = self.current.at_level(level, limits);
        let sums = &mut mine.sums;
        sums.messages += 1;
        sums.ap += u64::from(message.ap);
        sums.overage += u64::from(message.overage);
        match decided {
            Ok(charged) => {
                sums.proposed_ap += u64::from(charged);
                sums.proposed_overage += u64::from(cost - charged);
            }
            Err(binding) => {
                sums.denied_messages += 1;
                sums.denied_ap += u64::from(cost);
                for (place, denied) in mine.denied_by.iter_mut().enumerate() {
                    *denied += u64::from(binding.has(place));
                }
                self.current.first_denial.get_or_insert((message.at_ms, level));
            }
        }
    }

    /// Adds the current user to the result.
    fn end_user(&mut self) {
        let mut all = Sums::default();
        for mut mine in self.current.levels.drain(..) {
            mine.sums.users = 1;
            mine.sums.denied_users = u64::from(mine.sums.denied_messages > 0);
            let level = &mut self.levels[mine.level];
            level.sums.add(&mine.sums);
            for (limit, denied) in level.limits.iter_mut().zip(mine.denied_by) {
                limit.messages += denied;
                limit.users += u64::from(denied > 0);
            }
            all.add(&mine.sums);
        }
        all.users = all.users.min(1);
        all.denied_users = all.denied_users.min(1);
        self.total.add(&all);
        if let Some((at_ms, level)) = self.current.first_denial.take() {
            let day = self.calendar.day_at(instant(at_ms)).date();
            *self.levels[level].first_denials.entry(day).or_default() += 1;
            self.most_affected.add(AffectedUser {
                user: self.current.id.clone(),
                level: self.levels[level].name.clone(),
                sums: all,
                first_denied_ms: at_ms,
            });
        }
        self.current.id.clear();
        self.current.allowance.clear();
    }

    /// The place of a level. An unknown level is added, without limits.
    fn level(&mut self, name: &str) -> usize {
        self.levels.iter().position(|level| level.name == name).unwrap_or_else(|| {
            self.levels.push(LevelReport::unknown(name));
            self.levels.len() - 1
        })
    }
}

impl CurrentUser {
    fn at_level(&mut self, level: usize, limits: usize) -> &mut LevelUse {
        let place = self.levels.iter().position(|mine| mine.level == level).unwrap_or_else(|| {
            self.levels.push(LevelUse { level, sums: Sums::default(), denied_by: vec![0; limits] });
            self.levels.len() - 1
        });
        &mut self.levels[place]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::LoggedTokens, *};
    use crate::domain::{
        ap::Ap,
        level::{Level, LevelCode, LevelName, LevelTerms, Levels},
        model_costs::Unlisted,
        token_prices::TokenPrices,
        window::LevelLimits,
    };

    const DAY_MS: i64 = 86_400_000;

    fn present() -> Levels {
        let level = |code, name, quota| Level {
            code: LevelCode::new(code).unwrap(),
            name: LevelName::parse(name).unwrap(),
            quota: Ap::new(quota),
            limits: LevelLimits::default(),
            retired: false,
        };
        Levels::new(1, vec![level(1, "free", 10), level(2, "plus", 100)]).unwrap()
    }

    fn replay(
        levels: Vec<(LevelName, LevelTerms)>,
        prices: Option<Prices>,
        from_ms: i64,
        messages: &[LoggedMessage<'_>],
    ) -> Report {
        let proposal = Proposal::new(&present(), levels, prices);
        let mut simulation = Simulation::new(proposal, Calendar::new(chrono_tz::Tz::UTC), from_ms, 10);
        for message in messages {
            simulation.add(message);
        }
        simulation.finish()
    }

    fn message<'a>(user: &'a str, level: &'a str, day: i64, ap: u32) -> LoggedMessage<'a> {
        let (tokens, model) = (LoggedTokens::total(1_000), "large");
        LoggedMessage { user, level, model, at_ms: day * DAY_MS, period: 197_001, ap, granted: 0, overage: 0, tokens }
    }

    fn free(quota: u32, windows: &str) -> Vec<(LevelName, LevelTerms)> {
        let limits = LevelLimits::parse(windows, None).unwrap();
        vec![(LevelName::parse("free").unwrap(), LevelTerms { quota: Ap::new(quota), limits })]
    }

    #[test]
    fn a_lower_quota_denies_by_level_user_limit_and_day() {
        let messages = [
            message("ann", "free", 0, 3),
            message("ann", "free", 0, 1),
            message("ann", "free", 2, 3),
            message("ann", "plus", 3, 3),
            message("bob", "plus", 4, 2),
        ];
        let report = replay(free(5, "1d requests 1"), None, 0, &messages);
        let [free, plus] = &report.levels[..] else { panic!("{report:?}") };
        assert_eq!((free.name.as_str(), free.quota, plus.quota), ("free", Some(5), Some(100)));
        assert_eq!((free.sums.users, free.sums.messages, free.sums.ap, free.sums.proposed_ap), (1, 3, 7, 3));
        assert_eq!((free.sums.denied_users, free.sums.denied_messages, free.sums.denied_ap), (1, 2, 4));
        let limits: Vec<(String, u64, u64)> =
            free.limits.iter().map(|limit| (limit.limit.to_string(), limit.users, limit.messages)).collect();
        let expected = [("quota", 1, 1), ("model", 0, 0), ("1d requests", 1, 1)];
        assert_eq!(limits, expected.map(|(limit, users, messages)| (limit.to_owned(), users, messages)));
        assert_eq!(free.first_denials, BTreeMap::from([("1970-01-01".parse().unwrap(), 1)]));
        assert_eq!((plus.sums.users, plus.sums.proposed_ap, plus.sums.denied_users), (2, 5, 0));
        assert_eq!((report.total.users, report.total.denied_users, report.total.proposed_ap), (2, 1, 8));
        let [ann] = &report.most_affected[..] else { panic!("{report:?}") };
        assert_eq!((ann.user.as_str(), ann.level.as_str(), ann.first_denied_ms), ("ann", "free", 0));
        assert_eq!((ann.sums.messages, ann.sums.denied_messages, ann.sums.users), (4, 2, 1));
    }

    #[test]
    fn messages_before_the_range_use_up_limits_and_are_not_counted() {
        let messages = [message("ann", "free", 0, 4), message("ann", "free", 1, 4), message("ann", "free", 2, 2)];
        let report = replay(free(6, ""), None, DAY_MS, &messages);
        assert_eq!((report.total.messages, report.total.ap, report.total.proposed_ap), (2, 6, 2));
        assert_eq!(report.total.denied_messages, 1);
    }

    #[test]
    fn overage_is_admitted_as_before_and_charged_as_far_as_it_fits() {
        let over = LoggedMessage { overage: 4, ..message("ann", "free", 1, 2) };
        let messages = [message("ann", "free", 0, 8), over];
        let as_now = replay(vec![], None, 0, &messages).total;
        assert_eq!((as_now.proposed_ap, as_now.proposed_overage, as_now.denied_messages), (10, 4, 0));
        let more = replay(free(13, ""), None, 0, &messages).total;
        assert_eq!((more.proposed_ap, more.proposed_overage), (13, 1));
        let less = replay(free(9, ""), None, 0, &messages).total;
        assert_eq!((less.proposed_ap, less.denied_messages, less.denied_ap), (8, 1, 6));
    }

    #[test]
    fn what_grants_paid_they_pay_again() {
        let granted = LoggedMessage { granted: 6, ..message("ann", "free", 1, 8) };
        let messages = [message("ann", "free", 0, 7), granted, granted];
        let report = replay(free(11, "1d ap 7"), None, 0, &messages).total;
        assert_eq!((report.ap, report.proposed_ap, report.denied_messages), (23, 23, 0), "7 + 2 + 2 of 11");
        let report = replay(free(10, ""), None, 0, &messages).total;
        assert_eq!((report.proposed_ap, report.denied_messages, report.denied_ap), (15, 1, 8));
        let price = [("default".to_owned(), ModelPrice::Flat(Ap::new(5)))];
        let cheaper = Prices::new(price, Unlisted::Default).unwrap();
        let report = replay(free(5, ""), Some(cheaper), 0, &messages).total;
        assert_eq!((report.proposed_ap, report.denied_messages), (15, 0), "grants pay at most the cost");
    }

    #[test]
    fn prices_replace_what_messages_cost_and_may_refuse_a_model() {
        let price = |text: &str| text.parse().unwrap();
        let by_tokens =
            TokenPrices { input: price("1"), cached_input: price("1"), output: price("2500"), minimum: Ap::ONE };
        let given = [("default".to_owned(), ModelPrice::Flat(Ap::ONE)), ("large".to_owned(), by_tokens.into())];
        let prices = Prices::new(given, Unlisted::Refuse).unwrap();
        let messages = [
            message("ann", "free", 0, 9),
            LoggedMessage { tokens: LoggedTokens::total(0), ..message("ann", "free", 0, 9) },
            LoggedMessage {
                tokens: LoggedTokens { input: 1_000, ..LoggedTokens::default() },
                ..message("ann", "free", 0, 9)
            },
            LoggedMessage { model: "other", ..message("ann", "free", 0, 9) },
            LoggedMessage { model: "", ..message("ann", "free", 0, 9) },
        ];
        let report = replay(vec![], Some(prices), 0, &messages);
        assert_eq!((report.total.proposed_ap, report.total.denied_messages, report.total.denied_ap), (6, 1, 9));
        assert_eq!((report.tokens_as_output, report.tokens_unknown), (1, 1));
        assert_eq!(report.levels[0].limits[1].messages, 1, "refused by its model");
    }

    #[test]
    fn unknown_level_has_no_limits() {
        let report = replay(vec![], None, 0, &[message("ann", "gone", 0, 1_000_000)]);
        let level = report.levels.last().unwrap();
        assert_eq!((level.name.as_str(), level.quota, level.sums.proposed_ap), ("gone", None, 1_000_000));
    }
}
