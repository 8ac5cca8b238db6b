//! Random messages under random proposals: the replay, which keeps the state of one user, has the result of a
//! calculation that looks at all earlier messages again for each message.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate};
use proptest::prelude::*;
use quota_gate::domain::{
    ap::Ap,
    calendar::Calendar,
    level::{Level, LevelCode, LevelName, LevelTerms, Levels},
    model_costs::{ModelPrice, Unlisted},
    price_replay::{Limit, LoggedMessage, LoggedTokens, Prices, Proposal, Report, Simulation, Sums},
    token_prices::TokenPrices,
    window::{LevelLimits, Window, WindowKey, WindowUnit},
};

const USERS: [&str; 3] = ["ann", "bob", "cid"];
const LEVELS: [&str; 2] = ["free", "plus"];
const MODELS: [&str; 4] = ["", "large", "by-tokens", "other"];
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 1440 * MINUTE_MS;
/// Most histories are longer than this, so messages are counted and not counted.
const COUNTED_FROM_MS: i64 = 2 * DAY_MS;

/// A message without its user.
#[derive(Debug, Clone, Copy)]
struct Sent {
    level: usize,
    model: usize,
    minutes_later: i64,
    earlier_period: bool,
    ap: u32,
    /// Of ten parts, as many that grants paid.
    granted_tenths: u32,
    overage: u32,
    tokens: u32,
}

#[derive(Debug, Clone)]
struct Terms {
    quotas: [u32; 2],
    windows: [Vec<Window>; 2],
    prices: Option<Unlisted>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let minutes = prop_oneof![0..30i64, 30..2_000i64];
    let overage = prop_oneof![4 => Just(0), 1 => 1..5u32];
    let granted = prop_oneof![3 => Just(0), 1 => 1..=10u32];
    (0..2usize, 0..4usize, minutes, prop::bool::weighted(0.1), 0..6u32, granted, overage, 0..3_000u32).prop_map(
        |(level, model, minutes_later, earlier_period, ap, granted_tenths, overage, tokens)| Sent {
            level,
            model,
            minutes_later,
            earlier_period,
            ap,
            granted_tenths,
            overage,
            tokens,
        },
    )
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    let window = |every: &'static str, unit: WindowUnit| {
        (1..12u32).prop_map(move |limit| Window { key: WindowKey::parse(every, unit).unwrap(), limit })
    };
    let all = (
        prop::option::of(window("5h", WindowUnit::Ap)),
        prop::option::of(window("1d", WindowUnit::Ap)),
        prop::option::of(window("1h", WindowUnit::Requests)),
    );
    all.prop_map(|(hours, day, requests)| [hours, day, requests].into_iter().flatten().collect())
}

fn terms() -> impl Strategy<Value = Terms> {
    let quotas = [0..40u32, 0..80u32];
    let prices = prop_oneof![Just(None), Just(Some(Unlisted::Default)), Just(Some(Unlisted::Refuse))];
    (quotas, [windows(), windows()], prices).prop_map(|(quotas, windows, prices)| Terms { quotas, windows, prices })
}

/// Adds user, time and period to what was sent.
fn messages<'a>(user: &'a str, sent: &[Sent]) -> Vec<LoggedMessage<'a>> {
    let mut at_ms = 0;
    let message = |sent: &Sent| {
        at_ms += sent.minutes_later * MINUTE_MS;
        // Periods of ten days, so a history has several.
        let period = i32::try_from(at_ms / (10 * DAY_MS)).unwrap() - i32::from(sent.earlier_period);
        LoggedMessage {
            user,
            level: LEVELS[sent.level],
            model: MODELS[sent.model],
            at_ms,
            period,
            ap: sent.ap,
            granted: sent.ap * sent.granted_tenths / 10,
            overage: sent.overage,
            tokens: LoggedTokens::total(sent.tokens),
        }
    };
    sent.iter().map(message).collect()
}

fn replay(terms: &Terms, messages: &[LoggedMessage<'_>]) -> Report {
    let level = |place: usize| {
        let code = LevelCode::new(u8::try_from(place + 1).unwrap()).unwrap();
        Level {
            code,
            name: LevelName::parse(LEVELS[place]).unwrap(),
            quota: Ap::new(1),
            limits: LevelLimits::default(),
            retired: false,
        }
    };
    let present = Levels::new(1, vec![level(0), level(1)]).unwrap();
    let proposed = [0, 1].map(|place| {
        let limits = LevelLimits::new(terms.windows[place].clone(), None).unwrap();
        (LevelName::parse(LEVELS[place]).unwrap(), LevelTerms { quota: Ap::new(terms.quotas[place]), limits })
    });
    let prices = terms.prices.map(|unlisted| {
        let price = |text: &str| text.parse().unwrap();
        let by_tokens =
            TokenPrices { input: price("1"), cached_input: price("1"), output: price("2000"), minimum: Ap::ONE };
        let flat = |ap| ModelPrice::Flat(Ap::new(ap));
        let given = [("default", flat(2)), ("large", flat(4)), ("by-tokens", by_tokens.into())];
        Prices::new(given.map(|(name, price)| (name.to_owned(), price)), unlisted).unwrap()
    });
    let proposal = Proposal::new(&present, proposed.to_vec(), prices);
    let mut simulation = Simulation::new(proposal, Calendar::new(chrono_tz::Tz::UTC), COUNTED_FROM_MS, 10);
    for message in messages {
        simulation.add(message);
    }
    simulation.finish()
}

/// A message and what a proposal makes of it: the charge, or the limits that deny it.
struct Decided<'a> {
    message: LoggedMessage<'a>,
    cost: u32,
    outcome: Result<u32, Vec<Limit>>,
}

/// Decides the last message by the messages of the same user before it.
fn decide(terms: &Terms, earlier: &[Decided<'_>], message: &LoggedMessage<'_>) -> (u32, Result<u32, Vec<Limit>>) {
    let cost = match (terms.prices, message.model) {
        (None, _) => message.ap + message.overage,
        (Some(_), "large") => 4,
        (Some(_), "by-tokens") => message.tokens.output.div_ceil(500).max(1),
        (Some(Unlisted::Refuse), "other") => return (message.ap + message.overage, Err(vec![Limit::Model])),
        (Some(_), _) => 2,
    };
    let needed = if message.overage > 0 { cost.min(message.ap) } else { cost };
    let granted = |message: &LoggedMessage<'_>, cost: u32| cost.min(message.granted);
    let needed = needed.saturating_sub(granted(message, cost));
    let level = LEVELS.iter().position(|level| *level == message.level).unwrap();
    // What the plan has paid.
    let charges = || {
        let of_plan = |other: &Decided<'_>, charged: u32| charged - granted(&other.message, other.cost);
        earlier.iter().filter_map(move |other| Some((&other.message, of_plan(other, *other.outcome.as_ref().ok()?))))
    };
    let used: u32 = charges().filter(|(other, _)| other.period == message.period).map(|(_, charged)| charged).sum();
    let mut free = terms.quotas[level].saturating_sub(used);
    let mut binding = if needed > free { vec![Limit::Quota] } else { vec![] };
    for window in &terms.windows[level] {
        let counted = |charged: u32| if window.key.unit == WindowUnit::Ap { charged } else { 1 };
        let (mut start_ms, mut used) = (None, 0);
        for (other, charged) in charges().filter(|(_, charged)| counted(*charged) > 0) {
            let at = LEVELS.iter().position(|level| *level == other.level).unwrap();
            if terms.windows[at].iter().all(|other| other.key != window.key) {
                continue;
            }
            if start_ms.is_none_or(|start_ms| other.at_ms >= start_ms + window.key.length().num_milliseconds()) {
                (start_ms, used) = (Some(other.at_ms), 0);
            }
            used += counted(charged);
        }
        let is_running =
            start_ms.is_some_and(|start_ms| message.at_ms < start_ms + window.key.length().num_milliseconds());
        let room = window.limit.saturating_sub(if is_running { used } else { 0 });
        if window.key.unit == WindowUnit::Ap {
            free = free.min(room);
        }
        if room < if window.key.unit == WindowUnit::Ap { needed } else { 1 } {
            binding.push(Limit::Window(*window));
        }
    }
    let granted = granted(message, cost);
    (cost, if binding.is_empty() { Ok(granted + (cost - granted).min(free)) } else { Err(binding) })
}

fn sums_of<'a>(decided: &(impl Iterator<Item = &'a Decided<'a>> + Clone)) -> Sums {
    let sum = |of: fn(&Decided<'_>) -> u32| decided.clone().map(|one| u64::from(of(one))).sum::<u64>();
    let users: BTreeSet<&str> = decided.clone().map(|one| one.message.user).collect();
    let denied = || decided.clone().filter(|one| one.outcome.is_err());
    let denied_users: BTreeSet<&str> = denied().map(|one| one.message.user).collect();
    Sums {
        users: users.len() as u64,
        messages: decided.clone().count() as u64,
        ap: sum(|one| one.message.ap),
        overage: sum(|one| one.message.overage),
        proposed_ap: sum(|one| *one.outcome.as_ref().unwrap_or(&0)),
        proposed_overage: sum(|one| one.outcome.as_ref().map_or(0, |charged| one.cost - charged)),
        denied_users: denied_users.len() as u64,
        denied_messages: denied().count() as u64,
        denied_ap: denied().map(|one| u64::from(one.cost)).sum(),
    }
}

fn day_of(at_ms: i64) -> NaiveDate {
    DateTime::from_timestamp_millis(at_ms).unwrap().date_naive()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_replay_has_the_result_of_a_naive_calculation(
        histories in [prop::collection::vec(sent(), 0..40), prop::collection::vec(sent(), 0..40), prop::collection::vec(sent(), 0..40)],
        terms in terms(),
    ) {
        let mut decided = Vec::new();
        let mut all = Vec::new();
        for (user, history) in USERS.iter().zip(&histories) {
            let mut of_user: Vec<Decided<'_>> = Vec::new();
            for message in messages(user, history) {
                let (cost, outcome) = decide(&terms, &of_user, &message);
                of_user.push(Decided { message, cost, outcome });
                all.push(message);
            }
            decided.extend(of_user);
        }
        decided.retain(|one| one.message.at_ms >= COUNTED_FROM_MS);
        let report = replay(&terms, &all);
        prop_assert_eq!(report.total, sums_of(&decided.iter()));
        for level in &report.levels {
            let of_level = || decided.iter().filter(|one| one.message.level == level.name);
            prop_assert_eq!(level.sums, sums_of(&of_level()), "{}", &level.name);
            for limit in &level.limits {
                let denies = |one: &&Decided<'_>| one.outcome.as_ref().is_err_and(|limits| limits.contains(&limit.limit));
                let users: BTreeSet<&str> = of_level().filter(denies).map(|one| one.message.user).collect();
                let expected = (users.len() as u64, of_level().filter(denies).count() as u64);
                prop_assert_eq!((limit.users, limit.messages), expected, "{} {}", &level.name, limit.limit);
            }
            let mut first_denials = BTreeMap::new();
            for user in USERS {
                let first = decided.iter().find(|one| one.message.user == user && one.outcome.is_err());
                if let Some(first) = first.filter(|first| first.message.level == level.name) {
                    *first_denials.entry(day_of(first.message.at_ms)).or_default() += 1;
                }
            }
            prop_assert_eq!(&level.first_denials, &first_denials, "{}", &level.name);
        }
        for user in &report.most_affected {
            let of_user = decided.iter().filter(|one| one.message.user == user.user);
            prop_assert_eq!(user.sums, sums_of(&of_user));
            let first = of_user.clone().find(|one| one.outcome.is_err()).unwrap();
            prop_assert_eq!((user.first_denied_ms, user.level.as_str()), (first.message.at_ms, first.message.level));
        }
        prop_assert_eq!(report.most_affected.len() as u64, report.total.denied_users);
    }
}
