//! The fault harness: runs real servers, gate processes and clients, injects a fault, and audits the outcome against
//! I1 to I11.
//!
//! ```text
//! cargo test --test faults                     a short selection, as part of `make test`
//! cargo test --test faults -- --all            every row except 29 and 40; table in target/fault-report/
//! cargo test --test faults -- --row 12         one row; may be repeated
//! cargo test --test faults -- --soak 30        random faults for 30 minutes; `make soak MINUTES=30`
//! cargo test --test faults -- --soak 5 --seed 7
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `rows/` | the faults: one function each |
//! | `soak` | random faults from a seed |
//! | `run`, `audit` | one run; the invariants |
//! | `load`, `history` | clients, and the answers they received |
//! | `plans` | the client that buys packs and changes plans, and its users |
//! | `installation`, `gate`, `proxy`, `replica`, `cluster` | the system under test |
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

mod audit;
mod cluster;
mod gate;
mod history;
mod installation;
mod load;
mod plans;
mod proxy;
mod replica;
mod report;
mod rows;
mod run;
mod soak;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    report::Report,
    rows::{Class, ROWS},
};

/// Injects faults and checks that nothing is lost, duplicated or wrongly refused.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line are bools")]
struct Arguments {
    /// Run every row except the long ones.
    #[arg(long)]
    all: bool,
    /// Run these rows.
    #[arg(long)]
    row: Vec<u32>,
    /// Inject random faults for this many minutes.
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// Seed of the random numbers.
    #[arg(long)]
    seed: Option<u64>,
    /// Run the rows whose name contains this text. `cargo test FILTER` passes it to every test program.
    filter: Option<String>,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

impl Arguments {
    fn wants(&self, row: &rows::Row) -> bool {
        if let Some(filter) = &self.filter {
            return row.class != Class::Long && row.name.contains(filter.as_str());
        }
        match row.class {
            _ if !self.row.is_empty() => self.row.contains(&row.number),
            Class::Short => true,
            Class::Ordinary => self.all,
            Class::Long => false,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list || arguments.ignored {
        return ExitCode::SUCCESS;
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if let Some(minutes) = arguments.soak {
        println!("soak: {minutes} minutes, seed {seed}; repeat with --soak {minutes} --seed {seed}");
        return match runtime.block_on(soak::soak(minutes, seed)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("soak FAILED (seed {seed}): {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let mut report = Report::new(seed);
    for row in ROWS.iter().filter(|row| arguments.wants(row)) {
        report.add(row, runtime.block_on((row.run)(seed)));
    }
    report.finish()
}
