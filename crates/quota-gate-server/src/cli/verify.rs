//! `quota-gate verify`: compares usage log, totals and Redis.

use std::process::ExitCode;

use crate::cli::output::say;
use crate::{
    app::{self, App},
    config::Config,
};
use quota_gate::{
    audit::{
        level_drift::{LevelDrift, Standing},
        repair::Repairer,
        verify::{Verdict, Verifier},
    },
    domain::clock::instant,
};

/// Maximum differences of a kind to list; the others are only counted.
const NAMED_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Make them agree: missing charges become rows of kind `adjustment`, totals follow the log, partitions whose
    /// records miss charges are reopened, users get the quota of their level. No charge is taken back.
    #[arg(long)]
    repair: bool,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let verifier = Verifier {
        redis: app::redis(&config)?,
        postgres: app::settled_postgres(&config).await?,
        partitions: config.partitions()?,
    };
    let mut verdict = verifier.verify().await?;
    print(&verdict, &verifier).await?;
    if arguments.repair && !verdict.agrees() {
        let repaired = Repairer::new(&App::for_command(config).await?.gate).repair().await?;
        say!(
            "repaired: {} adjustments, {} totals raised, {} sums by day, {} grants, {} periods of meters, {} partitions reopened, {} levels, \
             {} left for you to fix",
            repaired.adjustments,
            repaired.totals,
            repaired.usage,
            repaired.grants,
            repaired.meters,
            repaired.reopened,
            repaired.levels,
            repaired.left
        );
        verdict = verifier.verify().await?;
        print(&verdict, &verifier).await?;
    }
    if verdict.agrees() {
        say!("log = totals = Redis");
        return Ok(ExitCode::SUCCESS);
    }
    say!(
        "{} totals, {} sums by day, {} grants, {} periods of meters, {} records and {} quotas or levels differ",
        verdict.drift.len(),
        verdict.usage_drift.len(),
        verdict.grant_drift.len() + verdict.transfer_drift.len(),
        verdict.meter_drift.len(),
        verdict.differences.len(),
        verdict.quota_drift.len() + verdict.level_drift.len()
    );
    Ok(ExitCode::FAILURE)
}

async fn print(verdict: &Verdict, verifier: &Verifier) -> anyhow::Result<()> {
    say!(
        "{} users, {} of them in Redis, {} events not flushed yet, {} settlements waiting in the inbox, {} dead letters",
        verdict.users,
        verdict.records,
        verdict.unflushed,
        verdict.inbox,
        verdict.dead_letters
    );
    for drift in verdict.drift.iter().take(NAMED_MAX) {
        let period = drift.period.map_or("in total".to_owned(), |period| format!("in {period}"));
        say!("drift: {} {period}: {} AP in the log, {} AP in the totals", drift.user, drift.logged, drift.total);
    }
    for drift in verdict.usage_drift.iter().take(NAMED_MAX) {
        let (messages, ap) = drift.missing;
        say!(
            "drift: {} {} {:?}: the log has {messages} messages and {ap} AP more than the sum by day",
            drift.day,
            drift.level,
            drift.model
        );
    }
    for drift in verdict.grant_drift.iter().take(NAMED_MAX) {
        say!(
            "drift: grant {} of {} with {} AP: the log has {} AP charged and {} transferred, the grant {} and {}",
            drift.number,
            drift.user,
            drift.granted,
            drift.charged.0,
            drift.transferred.0,
            drift.charged.1,
            drift.transferred.1
        );
    }
    let levels = verifier.postgres.all_levels().await?;
    let meter = |code| levels.meter(code).map_or("chat", |meter| meter.name.as_str());
    for drift in verdict.meter_drift.iter().take(NAMED_MAX) {
        say!(
            "drift: {} of {} in {}: {} AP in the log, {} AP in meter_usage",
            meter(drift.meter),
            drift.user,
            drift.period,
            drift.total.0,
            drift.total.1
        );
    }
    for drift in verdict.transfer_drift.iter().take(NAMED_MAX) {
        say!("drift: transfer {}: {} AP were sent, {} AP received", drift.transfer, drift.sent, drift.received);
    }
    for found in verdict.differences.iter().take(NAMED_MAX) {
        if !found.meter.is_chat() {
            say!("drift: of the meter {}:", meter(found.meter));
        }
        say!(
            "drift: {} in {}: Redis has {} AP used and {} AP in total, Postgres and the stream {} and {}; {}",
            found.user,
            found.period,
            found.used.0,
            found.total_used.0,
            found.used.1,
            found.total_used.1,
            found.reason()
        );
        for grant in found.grants.iter().take(NAMED_MAX) {
            let (redis, postgres) = grant.left;
            say!("  grant {}: {redis} AP are left in Redis, {postgres} in Postgres", grant.number.get());
        }
        for window in found.windows.iter().take(NAMED_MAX) {
            let (name, (redis, journal)) = (window.key.every(), window.counted);
            say!(
                "  window {name} in {}: Redis has {} since {}, Postgres and the stream {} since {}",
                window.key.unit.as_str(),
                redis.1,
                instant(redis.0),
                journal.1,
                instant(journal.0)
            );
        }
    }
    if verifier.postgres.is_level_change_unfinished().await? {
        say!("a change of the levels has not reached all users: run `quota-gate levels apply`");
    }
    for found in verdict.quota_drift.iter().take(NAMED_MAX) {
        say!("drift: {} has {} AP, but level {} has {} AP", found.user, found.quota, found.level, found.expected);
    }
    let name = |code| levels.coded(code).map_or_else(|| format!("{code:?}"), |level| level.name.to_string());
    let shown = |standing: Standing| {
        let pending = standing.pending.map_or(String::new(), |code| format!(", then {}", name(code)));
        let own = if standing.own_quota { " of the user's own" } else { "" };
        let blocked = if standing.blocked { ", blocked" } else { "" };
        format!("{} with {} AP{own}{pending}{blocked}", name(standing.level), standing.quota)
    };
    for LevelDrift { user, found, expected, .. } in verdict.level_drift.iter().take(NAMED_MAX) {
        say!("drift: {user} is {} in Redis, {} in Postgres", shown(*found), shown(*expected));
    }
    Ok(())
}
