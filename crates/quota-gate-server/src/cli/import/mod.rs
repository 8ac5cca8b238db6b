//! `quota-gate import`: imports users from CSV, NDJSON, or a query of the product's own Postgres.
//!
//! Valid lines are imported, bad ones are reported by number. Of a bad line, nothing is imported. Importing again
//! changes nothing.

mod line;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead, BufReader, Read, stdin},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use self::line::{Line, too_many_grants};
use crate::cli::output::{note, say};
use crate::{app::App, config::Config};
use quota_gate::{
    domain::{clock::Clock, level::Levels, user_id::UserId},
    store::postgres::{ImportRow, read_foreign_users},
};

/// Users per transaction.
const BATCH_ROWS: usize = 5_000;
/// Columns of CSV, of which the first two are required.
const CSV_HEADER: [&str; 4] = ["user", "level", "used", "anchor"];
/// Maximum bad lines to print; the others are only counted.
const SHOWN_MAX: u64 = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File to import; `-` for standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// csv (with the header user,level and optionally used and anchor) or ndjson; by default, the file's name decides.
    #[arg(long)]
    format: Option<FileFormat>,
    /// Import from another Postgres instead of a file: its URL. Needs `--query`.
    #[arg(long, value_name = "URL", requires = "query", conflicts_with_all = ["file", "format"], env = "QUOTA_GATE_IMPORT_URL", hide_env_values = true)]
    from_postgres: Option<String>,
    /// Query of that database, with the columns user, level and optionally used, anchor, windows and grants. It runs
    /// read-only.
    #[arg(long, value_name = "SQL", requires = "from_postgres")]
    query: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FileFormat {
    Csv,
    Ndjson,
}

struct Importer {
    app: App,
    levels: Levels,
    /// Rows with the numbers of their lines.
    batch: HashMap<UserId, (u64, ImportRow)>,
    inserted: u64,
    updated: u64,
    /// Known users with another level or new grants.
    changed: u64,
    grants: u64,
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
    let batch = HashMap::new();
    let mut importer =
        Importer { app, levels, batch, inserted: 0, updated: 0, changed: 0, grants: 0, good: 0, bad: 0, progress };
    match (query, format) {
        (Some((url, query)), _) => importer.postgres(&url, &query).await?,
        (None, FileFormat::Csv) => importer.csv(input).await?,
        (None, FileFormat::Ndjson) => importer.ndjson(input).await?,
    }
    importer.flush().await?;
    importer.progress.finish_and_clear();
    let unchanged = importer.good - importer.inserted - importer.changed;
    let grants = if importer.grants > 0 { format!(", {} grants", importer.grants) } else { String::new() };
    say!(
        "{} users imported{grants}, {} changed level, {unchanged} unchanged, {} bad lines",
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
        if !(2..=CSV_HEADER.len()).any(|columns| headers == CSV_HEADER[..columns]) {
            anyhow::bail!("the first line must be `user,level`, `user,level,used` or `user,level,used,anchor`");
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
            self.add(index as u64 + 1, Line::from_json(&line)).await?;
        }
        Ok(())
    }

    /// Imports the rows of a query. Writes only changes: known users keep their usage, and equal levels stay.
    async fn postgres(&mut self, url: &str, query: &str) -> anyhow::Result<()> {
        let (sender, mut rows) = mpsc::channel(BATCH_ROWS);
        let (url, query) = (url.to_owned(), query.to_owned());
        let reading = tokio::spawn(async move { read_foreign_users(&url, &query, sender).await });
        let mut number = 0;
        while let Some(row) = rows.recv().await {
            number += 1;
            self.add(number, Line::from_row(row)).await?;
        }
        reading.await?.context("the users cannot be read")
    }

    async fn add(&mut self, number: u64, line: Result<Line, String>) -> anyhow::Result<()> {
        match line.and_then(|line| line.check(&self.levels, Clock::machine().now())) {
            Ok(row) => {
                // If a user has several lines, the last one counts.
                if self.batch.insert(row.user.clone(), (number, row)).is_none() {
                    self.good += 1;
                }
            }
            Err(problem) => self.refuse(number, &problem),
        }
        if self.batch.len() >= BATCH_ROWS {
            self.flush().await?;
        }
        Ok(())
    }

    fn refuse(&mut self, number: u64, problem: &str) {
        self.bad += 1;
        if self.bad <= SHOWN_MAX {
            self.progress.suspend(|| note!("line {number}: {problem}"));
        }
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        let (lines, rows): (HashMap<UserId, u64>, Vec<ImportRow>) =
            self.batch.drain().map(|(user, (number, row))| ((user, number), row)).unzip();
        if rows.is_empty() {
            return Ok(());
        }
        let now = Clock::machine().now();
        let report = self.app.gate.postgres().import_users(&rows, self.app.gate.calendar(), now).await?;
        for user in &report.updated {
            self.app.gate.refresh_level(user).await?;
        }
        for user in &report.refused {
            self.good -= 1;
            self.refuse(lines[user], &too_many_grants());
        }
        self.inserted += report.inserted;
        self.updated += report.updated.len() as u64;
        self.changed += report.updated.iter().chain(&report.given).collect::<HashSet<_>>().len() as u64;
        self.grants += report.grants;
        self.progress.inc(rows.len() as u64);
        Ok(())
    }
}
