//! `quota-gate import`: imports users from CSV, NDJSON, or a query of the product's own Postgres.
//!
//! Valid lines are imported, bad ones are reported by number. Importing again changes nothing.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read, stdin},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::cli::output::{note, say};
use crate::{app::App, config::Config};
use quota_gate::{
    domain::{
        ap::Ap,
        calendar::AnchorDay,
        clock::Clock,
        level::{LevelName, Levels},
        user_id::UserId,
    },
    store::postgres::{ForeignUser, ImportReport, ImportRow, read_foreign_users},
};

/// Users per transaction.
const BATCH_ROWS: usize = 5_000;
/// Maximum bad lines to print; the others are only counted.
const SHOWN_MAX: u64 = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File to import; `-` for standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// csv (with the header user,level,used) or ndjson; by default, the file's name decides.
    #[arg(long)]
    format: Option<FileFormat>,
    /// Import from another Postgres instead of a file: its URL. Needs `--query`.
    #[arg(long, value_name = "URL", requires = "query", conflicts_with_all = ["file", "format"], env = "QUOTA_GATE_IMPORT_URL", hide_env_values = true)]
    from_postgres: Option<String>,
    /// Query of that database, with the columns user, level and optionally used. It runs read-only.
    #[arg(long, value_name = "SQL", requires = "from_postgres")]
    query: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FileFormat {
    Csv,
    Ndjson,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user: String,
    level: String,
    #[serde(default)]
    used: i64,
    /// Day of the month on which the user's periods begin.
    #[serde(default)]
    anchor: Option<i64>,
}

struct Importer {
    app: App,
    levels: Levels,
    batch: HashMap<UserId, ImportRow>,
    inserted: u64,
    updated: u64,
    good: u64,
    bad: u64,
    progress: ProgressBar,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let format = arguments.format.unwrap_or_else(|| {
        let name = arguments.file.to_string_lossy();
        if name.ends_with(".ndjson") || name.ends_with(".jsonl") { FileFormat::Ndjson } else { FileFormat::Csv }
    });
    let query = arguments.from_postgres.zip(arguments.query);
    let from_stdin = arguments.file.as_os_str() == "-";
    let input: Box<dyn Read> = if query.is_some() {
        Box::new(std::io::empty())
    } else if from_stdin {
        Box::new(stdin())
    } else {
        Box::new(File::open(&arguments.file).with_context(|| format!("cannot open {}", arguments.file.display()))?)
    };
    let app = App::for_command(config).await?;
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{spinner} {human_pos} users, {per_sec}")?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let levels = app.gate.levels();
    let mut importer =
        Importer { app, levels, batch: HashMap::new(), inserted: 0, updated: 0, good: 0, bad: 0, progress };
    match (query, format) {
        (Some((url, query)), _) => importer.postgres(&url, &query).await?,
        (None, FileFormat::Csv) => importer.csv(input).await?,
        (None, FileFormat::Ndjson) => importer.ndjson(input).await?,
    }
    importer.flush().await?;
    importer.progress.finish_and_clear();
    let unchanged = importer.good - importer.inserted - importer.updated;
    say!(
        "{} users imported, {} changed level, {unchanged} unchanged, {} bad lines",
        importer.inserted,
        importer.updated,
        importer.bad
    );
    Ok(if importer.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Importer {
    async fn csv(&mut self, input: Box<dyn Read>) -> anyhow::Result<()> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(false).from_reader(input);
        let headers = reader.byte_headers().context("the input cannot be read")?.clone();
        if headers != vec!["user", "level", "used"] && headers != vec!["user", "level"] {
            anyhow::bail!("the first line must be `user,level,used` or `user,level`");
        }
        let mut number = 1;
        for record in reader.byte_records() {
            number = record.as_ref().ok().and_then(|record| record.position()).map_or(number + 1, csv::Position::line);
            let line = record.and_then(|record| record.deserialize::<Line>(Some(&headers)));
            self.add(number, line.map_err(|error| error.to_string())).await?;
        }
        Ok(())
    }

    async fn ndjson(&mut self, input: Box<dyn Read>) -> anyhow::Result<()> {
        for (index, line) in BufReader::new(input).split(b'\n').enumerate() {
            let line = line.context("the input cannot be read")?;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line = serde_json::from_slice::<Line>(&line).map_err(|error| error.to_string());
            self.add(index as u64 + 1, line).await?;
        }
        Ok(())
    }

    /// Imports the rows of a query. Writes only changes: known users keep their usage, and equal levels stay.
    async fn postgres(&mut self, url: &str, query: &str) -> anyhow::Result<()> {
        let (sender, mut rows) = mpsc::channel(BATCH_ROWS);
        let (url, query) = (url.to_owned(), query.to_owned());
        let reading = tokio::spawn(async move { read_foreign_users(&url, &query, sender).await });
        let mut number = 0;
        while let Some(ForeignUser { user, level, used, anchor }) = rows.recv().await {
            number += 1;
            let line = match (user, level) {
                (Some(user), Some(level)) => Ok(Line { user, level, used, anchor }),
                _ => Err("the query must return the columns user and level, and neither may be null".to_owned()),
            };
            self.add(number, line).await?;
        }
        reading.await?.context("the users cannot be read")
    }

    async fn add(&mut self, number: u64, line: Result<Line, String>) -> anyhow::Result<()> {
        match line.and_then(|line| self.parse(&line)) {
            Ok(row) => {
                // If a user has several lines, the last one counts.
                if self.batch.insert(row.user.clone(), row).is_none() {
                    self.good += 1;
                }
            }
            Err(problem) => {
                self.bad += 1;
                if self.bad <= SHOWN_MAX {
                    self.progress.suspend(|| note!("line {number}: {problem}"));
                }
            }
        }
        if self.batch.len() >= BATCH_ROWS {
            self.flush().await?;
        }
        Ok(())
    }

    fn parse(&self, line: &Line) -> Result<ImportRow, String> {
        let level = LevelName::parse(&line.level).map_err(|error| error.to_string())?;
        if self.levels.offered(level.as_str()).is_none() {
            let known: Vec<&str> = self.levels.iter().map(|level| level.name.as_str()).collect();
            return Err(format!("level {level} is not one of {}", known.join(", ")));
        }
        let user = UserId::parse(&line.user).map_err(|error| error.to_string())?;
        let amount = i32::try_from(line.used).ok().and_then(|amount| u32::try_from(amount).ok());
        let wrong = || format!("used must be a whole number from 0 to {}, not {}", i32::MAX, line.used);
        let anchor_day = line.anchor.map(|day| AnchorDay::new(u8::try_from(day).unwrap_or(0))).transpose();
        let anchor_day = anchor_day.map_err(|_| "anchor must be a day of the month from 1 to 31".to_owned())?;
        Ok(ImportRow { user, level, used: Ap::new(amount.ok_or_else(wrong)?), anchor_day })
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        let rows: Vec<ImportRow> = self.batch.drain().map(|(_, row)| row).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let now = Clock::machine().now();
        let calendar = self.app.gate.calendar();
        let ImportReport { inserted, updated } = self.app.gate.postgres().import_users(&rows, calendar, now).await?;
        for user in &updated {
            self.app.gate.refresh_level(user).await?;
        }
        self.inserted += inserted;
        self.updated += updated.len() as u64;
        self.progress.inc(rows.len() as u64);
        Ok(())
    }
}
