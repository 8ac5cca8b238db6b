//! Reports the results of the rows: lines while they run, a Markdown table at the end.

use std::{fmt::Write, fs, path::Path, process::ExitCode, time::Duration};

use crate::{rows::Row, run::Verdict};

/// Results of the rows.
pub(crate) struct Report {
    seed: u64,
    table: String,
    rows: usize,
    failed: usize,
    slowest: Duration,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        println!("faults: seed {seed}");
        Self { seed, table: String::new(), rows: 0, failed: 0, slowest: Duration::ZERO }
    }

    pub(crate) fn add(&mut self, row: &Row, outcome: anyhow::Result<Verdict>) {
        let verdict = outcome.unwrap_or_else(|error| Verdict {
            violations: vec![format!("the run aborted: {error:#}")],
            ..Verdict::default()
        });
        self.rows += 1;
        let passed = verdict.violations.is_empty();
        let figures: Vec<String> = verdict.figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let figures = figures.join(", ");
        println!("{:>2} {} ... {} ({figures})", row.number, row.name, if passed { "ok" } else { "FAILED" });
        for violation in verdict.violations.iter().take(10) {
            println!("     {violation}");
        }
        if verdict.violations.len() > 10 {
            println!("     and {} more", verdict.violations.len() - 10);
        }
        self.failed += usize::from(!passed);
        self.slowest = self.slowest.max(verdict.recovery.unwrap_or_default());
        let outcome = if passed { "passed" } else { "**failed**" };
        let _ = writeln!(self.table, "| {} | {} | {outcome} | {figures} |", row.number, row.name);
    }

    pub(crate) fn finish(self) -> ExitCode {
        let Self { seed, table, rows, failed, slowest } = self;
        let text = format!(
            "{} of {rows} rows passed, seed {seed}; slowest recovery {:.1} s\n\n\
             | # | fault | outcome | figures |\n| --- | --- | --- | --- |\n{table}",
            rows - failed,
            slowest.as_secs_f64(),
        );
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("target/fault-report");
        let written = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join("faults.md"), text));
        if let Err(error) = written {
            println!("the report could not be written: {error}");
        }
        println!("\nfaults: {} of {rows} rows passed, seed {seed}", rows - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
