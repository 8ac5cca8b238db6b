//! `quota-gate forget USER`: replaces a user's id by a pseudonym in both stores. Only the tables' owner may run it, not
//! the gate's role, which cannot change the log.

use std::process::ExitCode;

use anyhow::ensure;

use crate::cli::output::{note, say};
use crate::{app::App, config::Config};
use quota_gate::{
    audit::forget::{Forgetter, Found, Unsettled},
    domain::{author::Author, partition::Partition, user_id::UserId},
    jobs::flusher::{Flusher, FlusherOptions},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Id of the user.
    user: String,
    /// Only print what would change.
    #[arg(long)]
    dry_run: bool,
    /// Give up what is not settled: live reservations, accepted settlements, charges that the old credits system has
    /// not got. Without it, the command refuses while there is any.
    #[arg(long)]
    force: bool,
    /// Reason, recorded under the pseudonym. Do not name the person.
    #[arg(long, default_value = "")]
    reason: String,
    /// Let an id that was forgotten return, as a new user.
    #[arg(long, conflicts_with_all = ["dry_run", "force", "reason"])]
    readmit: bool,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let Arguments { dry_run, force, reason, readmit, .. } = arguments;
    let user = UserId::parse(&arguments.user)?;
    let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
    let author = Author::program("quota-gate forget", reason)?;
    if readmit {
        let app = App::for_command(config).await?;
        let readmitted = Forgetter::new(&app.gate).readmit(&user).await?;
        say!("{}", if readmitted { "the id may return, as a new user" } else { "this id was not forgotten" });
        return Ok(ExitCode::SUCCESS);
    }
    let rollout = &config.rollout;
    ensure!(
        !rollout.always_in.iter().chain(&rollout.always_out).any(|listed| listed == user.as_str()),
        "the configuration lists the user in [rollout]: remove the id there first, or a gate stores it again"
    );
    let app = App::for_command(config).await?;
    let forgetter = Forgetter::new(&app.gate);
    let found = forgetter.find(&user).await?;
    print(&found);
    if dry_run {
        say!("nothing was changed");
        return Ok(ExitCode::SUCCESS);
    }
    if found.traces.unreadable > 0 {
        note!(
            "{} dead letters of the user's partition are unreadable and may be about any of its users: replay or delete them",
            found.traces.unreadable
        );
    }
    let flusher = Flusher::new(app.gate.clone(), FlusherOptions::default());
    let levels = app.gate.levels();
    let flush = async |partition: Partition| {
        flusher.flush_partition(partition, &levels).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let unsettled = if force { Unsettled::GiveUp } else { Unsettled::Refuse };
    let pseudonym = forgetter.forget(&user, unsettled, &author, flush).await?;
    say!("the user is {pseudonym} now");
    Ok(ExitCode::SUCCESS)
}

fn print(found: &Found) {
    let Found { traces, record, live_holds, unflushed } = found;
    if traces.rows.is_empty() && record.is_none() && *unflushed == 0 {
        say!("neither store has anything about this user");
    }
    for (table, rows) in &traces.rows {
        say!("{table}: {rows} rows");
    }
    if record.is_some() {
        say!("redis: a record with {live_holds} live reservations");
    }
    if *unflushed > 0 {
        say!("redis: {unflushed} charges that are not in Postgres yet");
    }
    if traces.inbox_waiting > 0 {
        say!("inbox: {} settlements are not applied yet", traces.inbox_waiting);
    }
    if traces.dual_writes_waiting > 0 {
        say!("dual_writes: the old credits system has not got {} charges yet", traces.dual_writes_waiting);
    }
}
