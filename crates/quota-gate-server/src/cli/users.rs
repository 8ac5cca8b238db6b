//! `quota-gate users`: changes single users by hand, or many by a CSV file. Each change needs a reason, which is
//! recorded.

use std::{fs::File, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::cli::output::{note, say};
use crate::{app::App, config::Config};
use quota_gate::{
    domain::{
        author::Author,
        level::LevelName,
        level_change::Effective,
        own_quota::{OwnQuota, UserChange},
        quota::Quota,
        user_id::UserId,
    },
    gate::{ChangeLevel, ChangeUser, Gate},
};

/// Recorded as the author.
const BY: &str = "quota-gate users";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Give a user a quota of the user's own, which stays over resets and changes of level.
    Quota {
        /// Id of the user.
        user: String,
        /// AP per period, `unlimited`, or `level` for the quota of the user's level again.
        quota: String,
        #[command(flatten)]
        how: How,
    },
    /// Refuse new messages of a user. Reservations can still be settled.
    Block {
        /// Id of the user.
        user: String,
        #[command(flatten)]
        how: How,
    },
    /// Allow messages of a blocked user again.
    Unblock {
        /// Id of the user.
        user: String,
        #[command(flatten)]
        how: How,
    },
    /// Apply a CSV file with the columns user and reason, and any of level, quota and blocked. An empty cell changes
    /// nothing. Applying it again changes nothing. Bad lines are reported by number.
    Apply {
        /// File to apply.
        file: PathBuf,
        /// Only print what would change.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Reason, recorded in the history.
    #[arg(long)]
    reason: String,
    /// Only print what would change.
    #[arg(long)]
    dry_run: bool,
}

/// What a line, or a command, asks for.
struct Wanted {
    user: UserId,
    level: Option<LevelName>,
    change: UserChange,
    author: Author,
}

#[derive(Debug, Deserialize)]
struct Line {
    user: String,
    #[serde(default)]
    level: String,
    #[serde(default)]
    quota: String,
    #[serde(default)]
    blocked: String,
    reason: String,
}

pub(super) async fn run(action: Action, config: Config) -> anyhow::Result<ExitCode> {
    let (user, change, how) = match action {
        Action::Quota { user, quota, how } => {
            (user, UserChange { quota: Some(read_quota(&quota)?), blocked: None }, how)
        }
        Action::Block { user, how } => (user, UserChange { quota: None, blocked: Some(true) }, how),
        Action::Unblock { user, how } => (user, UserChange { quota: None, blocked: Some(false) }, how),
        Action::Apply { file, dry_run } => return apply(&file, dry_run, config).await,
    };
    let author = Author::person(BY, &how.reason)?;
    let wanted = Wanted { user: UserId::parse(&user)?, level: None, change, author };
    let app = App::for_command(config).await?;
    let done = make(&app.gate, &wanted, how.dry_run).await?;
    say!("{}: {}", wanted.user, if done.is_empty() { "nothing changes".to_owned() } else { done.join(", ") });
    if how.dry_run {
        say!("nothing was changed");
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(file: &PathBuf, dry_run: bool, config: Config) -> anyhow::Result<ExitCode> {
    let input = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(false).from_reader(input);
    let headers = reader.byte_headers().context("the input cannot be read")?.clone();
    let has = |name: &str| headers.iter().any(|header| header == name.as_bytes());
    let known = |header: &[u8]| [&b"user"[..], b"level", b"quota", b"blocked", b"reason"].contains(&header);
    ensure!(
        has("user") && has("reason") && headers.iter().all(known),
        "the first line must name the columns: user, reason, and any of level, quota, blocked"
    );
    let app = App::for_command(config).await?;
    let (mut changed, mut unchanged, mut bad, mut number) = (0_u64, 0_u64, 0_u64, 1);
    for record in reader.byte_records() {
        number = record.as_ref().ok().and_then(|record| record.position()).map_or(number + 1, csv::Position::line);
        let line = record.and_then(|record| record.deserialize::<Line>(Some(&headers)));
        let done = match line.map_err(anyhow::Error::from).and_then(|line| line.parse()) {
            Ok(wanted) => make(&app.gate, &wanted, dry_run).await.map(|done| (wanted.user, done)),
            Err(error) => Err(error),
        };
        match done {
            Ok((_, done)) if done.is_empty() => unchanged += 1,
            Ok((user, done)) => {
                changed += 1;
                say!("line {number}: {user}: {}", done.join(", "));
            }
            Err(error) => {
                bad += 1;
                note!("line {number}: {error:#}");
            }
        }
    }
    say!("{changed} users changed, {unchanged} unchanged, {bad} bad lines");
    if dry_run {
        say!("nothing was changed");
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Line {
    fn parse(&self) -> anyhow::Result<Wanted> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let blocked = match self.blocked.as_str() {
            "" => None,
            "true" => Some(true),
            "false" => Some(false),
            other => bail!("blocked must be true or false, not {other}"),
        };
        Ok(Wanted {
            user: UserId::parse(&self.user)?,
            level: given(&self.level).map(|level| LevelName::parse(&level)).transpose()?,
            change: UserChange { quota: given(&self.quota).map(|quota| read_quota(&quota)).transpose()?, blocked },
            author: Author::person(BY, &self.reason)?,
        })
    }
}

/// Parses a quota; none for that of the level.
fn read_quota(text: &str) -> anyhow::Result<Option<OwnQuota>> {
    Ok(if text == "level" { None } else { Some(OwnQuota::parse(text)?) })
}

/// Makes or previews the changes that are not there yet, and describes them.
async fn make(gate: &Gate, wanted: &Wanted, dry_run: bool) -> anyhow::Result<Vec<String>> {
    let Wanted { user, level, change, author } = wanted;
    let Some(row) = gate.postgres().find(user, DateTime::<Utc>::MAX_UTC).await? else { bail!("no such user: {user}") };
    let mut done = Vec::new();
    let levels = gate.levels();
    let has =
        |level: &LevelName| levels.coded(row.pending.unwrap_or(row.level)).is_some_and(|found| found.name == *level);
    if let Some(level) = level.as_ref().filter(|level| !has(level)) {
        let (user, level, author) = (user.clone(), level.clone(), author.clone());
        let request = ChangeLevel {
            user,
            level: level.clone(),
            effective: Effective::Fair,
            anchor_day: None,
            if_version: None,
            author,
        };
        let pending = if dry_run {
            gate.preview_level(&request).await?.pending
        } else {
            gate.change_level(request).await?.pending
        };
        done.push(format!("level {level}{}", if pending.is_some() { " from the next period" } else { "" }));
    }
    if change.quota.is_some() || change.blocked.is_some() {
        let request = ChangeUser { user: user.clone(), change: *change, if_version: None, author: author.clone() };
        let changed = if dry_run { gate.preview_user(&request).await? } else { gate.change_user(request).await? };
        let (before, after) = (&changed.before, &changed.after);
        if shown(before) != shown(after) {
            done.push(format!("quota {} instead of {}", shown(after), shown(before)));
        }
        if before.blocked != after.blocked {
            done.push(if after.blocked { "blocked" } else { "not blocked any more" }.to_owned());
        }
    }
    Ok(done)
}

fn shown(quota: &Quota) -> String {
    match (quota.own_quota, quota.quota) {
        (true, ap) if ap == OwnQuota::UNLIMITED.ap() => "unlimited".to_owned(),
        (true, ap) => format!("{ap} AP of the user's own"),
        (false, ap) => format!("{ap} AP of the level"),
    }
}
