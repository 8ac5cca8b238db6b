//! Explores the protocol of opening, flushing and data loss state by state (stateright).
//!
//! One partition; gates that charge; flushers; openers that may sleep or die at any step; a Redis that may be wiped or
//! restored from an older copy at any moment, with ids used again; a Postgres that never loses data. Each action is one
//! step of the code, and names it. The search must find every broken rule (`Rule`), or the model proves nothing.

mod protocol;
mod state;

use std::time::{Duration, Instant};

use protocol::{Protocol, Rule};
use stateright::{Checker, HasDiscoveries, Model};

/// Enough for every interleaving of a loss with a flush and an opening; some seconds in a debug build.
const STATES: usize = 400_000;
/// Time limit of a search. A longer one has been cut off.
const SEARCH_MAX: Duration = Duration::from_mins(8);

/// Returns what goes wrong in the first `states` states.
fn search(protocol: Protocol, states: usize) -> Vec<(&'static str, Vec<String>)> {
    let began = Instant::now();
    let checker = protocol
        .checker()
        .threads(2)
        .target_state_count(states)
        .timeout(SEARCH_MAX)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found: Vec<_> = checker.discoveries().into_iter().collect();
    let searched = checker.unique_state_count();
    // A search that was cut off proves nothing.
    assert!(!found.is_empty() || began.elapsed() < SEARCH_MAX, "only {searched} states in {SEARCH_MAX:?}");
    found
        .into_iter()
        .map(|(property, path)| (property, path.into_actions().iter().map(|action| format!("{action:?}")).collect()))
        .collect()
}

#[track_caller]
fn assert_holds(protocol: Protocol, states: usize) {
    let found = search(protocol, states);
    assert!(found.is_empty(), "{found:#?}");
}

#[track_caller]
fn assert_found(rule: Rule, protocol: Protocol) {
    let found = search(Protocol { broken: Some(rule), ..protocol }, 20 * STATES);
    assert!(!found.is_empty(), "{rule:?} is broken, but the search found nothing");
}

#[track_caller]
fn assert_walk_finds(what: &str, protocol: Protocol) {
    let found = (0..20_000).find_map(|seed| Some((seed, protocol.walk(seed).err()?.0)));
    assert_eq!(found.map(|(_, found)| found), Some(what), "{found:?}");
}

#[test]
fn no_charge_is_lost_or_counted_twice() {
    assert_holds(Protocol { charges: 2, losses: 1, ..Protocol::SMALL }, STATES);
}

#[test]
fn no_charge_is_lost_with_two_losses_and_two_openers() {
    assert_holds(Protocol { charges: 2, losses: 2, openers: 2, ..Protocol::SMALL }, STATES);
}

#[test]
#[ignore = "minutes: part of `make test-faults`"]
fn no_charge_is_lost_in_millions_of_states() {
    assert_holds(Protocol { charges: 3, losses: 2, openers: 2, flushers: 2, ..Protocol::SMALL }, 10 * STATES);
}

#[test]
fn random_histories_end_quiet_and_lose_no_charge() {
    for protocol in [
        Protocol { charges: 6, losses: 3, openers: 2, flushers: 2, generations: 20, ..Protocol::SMALL },
        Protocol { charges: 4, losses: 2, openers: 3, flushers: 1, generations: 20, ..Protocol::SMALL },
    ] {
        for seed in 0..400 {
            if let Err((what, trail)) = protocol.walk(seed) {
                panic!("{what} (seed {seed}): {trail:#?}");
            }
        }
    }
}

#[test]
fn a_flusher_that_ignores_the_anchor_is_found() {
    assert_found(Rule::Anchor, Protocol { charges: 2, losses: 1, ..Protocol::SMALL });
}

#[test]
fn a_generation_that_does_not_rise_is_found() {
    assert_found(Rule::Generation, Protocol { charges: 2, losses: 1, ..Protocol::SMALL });
}

#[test]
fn a_trim_before_the_commit_is_found() {
    assert_found(Rule::TrimAfterCommit, Protocol { charges: 2, losses: 0, ..Protocol::SMALL });
}

#[test]
fn an_opening_that_does_not_compare_streams_is_found() {
    let protocol = Protocol { charges: 6, losses: 3, openers: 2, generations: 20, ..Protocol::SMALL };
    assert_walk_finds("lost", Protocol { broken: Some(Rule::CompareStreams), ..protocol });
}

#[test]
fn a_drain_that_counts_existing_events_is_found() {
    assert_found(Rule::CountOnlyInserted, Protocol { charges: 1, losses: 1, ..Protocol::SMALL });
}

#[test]
fn a_stalled_opening_without_a_takeover_is_found() {
    let protocol = Protocol { charges: 4, losses: 2, generations: 20, ..Protocol::SMALL };
    assert_walk_finds("never quiet", Protocol { broken: Some(Rule::TakeOver), ..protocol });
}

#[test]
fn a_fence_that_does_not_name_the_process_is_found() {
    assert_found(Rule::FenceNamesProcess, Protocol { charges: 2, losses: 1, ..Protocol::SMALL });
}
