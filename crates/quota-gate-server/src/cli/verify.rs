//! `quota-gate verify`

use std::process::ExitCode;

use crate::{
    app::{self, App},
    config::Config,
};
use quota_gate::audit::{
    repair::Repairer,
    verify::{Verdict, Verifier},
};

/// Most users that are named; the others are counted.
const NAMED_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Make them agree: missing charges become rows of kind `adjustment`, totals follow the log, partitions whose records miss
    /// charges are opened anew. No charge is taken back.
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
        let repaired = Repairer::new(&App::build(config).await?.gate).repair().await?;
        println!(
            "repaired: {} adjustments, {} totals raised, {} sums by day, {} partitions opened anew, {} left to you",
            repaired.adjustments, repaired.totals, repaired.usage, repaired.reopened, repaired.left
        );
        verdict = verifier.verify().await?;
        print(&verdict);
    }
    if verdict.agrees() {
        println!("log = totals = Redis");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} totals, {} sums by day and {} records differ",
        verdict.drift.len(),
        verdict.usage_drift.len(),
        verdict.differences.len()
    );
    Ok(ExitCode::FAILURE)
}

fn print(verdict: &Verdict) {
    println!(
        "{} users, {} of them in Redis, {} events not flushed yet, {} settlements accepted and not made yet, {} dead letters",
        verdict.users, verdict.records, verdict.unflushed, verdict.inbox, verdict.dead_letters
    );
    for drift in verdict.drift.iter().take(NAMED_MAX) {
        let of = drift.period.map_or("in all".to_owned(), |period| format!("in {period}"));
        println!("drift: {} {of}: the log adds up to {}, the totals say {}", drift.user, drift.logged, drift.total);
    }
    for drift in verdict.usage_drift.iter().take(NAMED_MAX) {
        let (messages, ap) = drift.missing;
        println!(
            "drift: {} {} {:?}: the log has {messages} messages and {ap} AP more",
            drift.day, drift.level, drift.model
        );
    }
    for found in verdict.differences.iter().take(NAMED_MAX) {
        println!(
            "drift: {} in {}: Redis says {} used and {} in all, Postgres and the stream {} and {}; {}",
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
