//! `quota-gate verify`

use std::process::ExitCode;

use crate::{
    app,
    config::Config,
    domain::{calendar::Calendar, clock::Clock},
    jobs::verifier::Verifier,
};

/// Most users that are named; the others are counted.
const NAMED_MAX: usize = 20;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let verifier = Verifier {
        redis: app::redis(&config)?,
        postgres: app::settled_postgres(&config).await?,
        partitions: config.partitions()?,
        calendar: Calendar::new(config.time_zone()?),
        clock: Clock::machine(),
    };
    let verdict = verifier.verify().await?;
    println!(
        "{} users, {} of them in Redis, {} events not flushed yet, {} dead letters",
        verdict.users, verdict.records, verdict.unflushed, verdict.dead_letters
    );
    for drift in verdict.drift.iter().take(NAMED_MAX) {
        let of = drift.period.map_or("in all".to_owned(), |period| format!("in {period}"));
        println!("drift: {} {of}: the log adds up to {}, the totals say {}", drift.user, drift.logged, drift.total);
    }
    for found in verdict.differences.iter().take(NAMED_MAX) {
        println!(
            "drift: {} {}: Redis says {}, Postgres and the stream {}",
            found.user, found.what, found.redis, found.expected
        );
    }
    if verdict.agrees() {
        println!("log = totals = Redis");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} totals and {} records differ", verdict.drift.len(), verdict.differences.len());
    Ok(ExitCode::FAILURE)
}
