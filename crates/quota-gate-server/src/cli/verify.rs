//! `quota-gate verify`: compares usage log, totals and Redis.

use std::process::ExitCode;

use crate::cli::output::say;
use crate::{
    app::{self, App},
    config::Config,
};
use quota_gate::audit::{
    repair::Repairer,
    verify::{Verdict, Verifier},
};

/// Maximum differences of a kind to list; the others are only counted.
const NAMED_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Make them agree: missing charges become rows of kind `adjustment`, totals follow the log, partitions whose
    /// records miss charges are reopened. No charge is taken back.
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
    print(&verdict);
    if arguments.repair && !verdict.agrees() {
        let repaired = Repairer::new(&App::for_command(config).await?.gate).repair().await?;
        say!(
            "repaired: {} adjustments, {} totals raised, {} sums by day, {} partitions reopened, {} left for you to fix",
            repaired.adjustments,
            repaired.totals,
            repaired.usage,
            repaired.reopened,
            repaired.left
        );
        verdict = verifier.verify().await?;
        print(&verdict);
    }
    if verdict.agrees() {
        say!("log = totals = Redis");
        return Ok(ExitCode::SUCCESS);
    }
    say!(
        "{} totals, {} sums by day and {} records differ",
        verdict.drift.len(),
        verdict.usage_drift.len(),
        verdict.differences.len()
    );
    Ok(ExitCode::FAILURE)
}

fn print(verdict: &Verdict) {
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
    for found in verdict.differences.iter().take(NAMED_MAX) {
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
    }
}
