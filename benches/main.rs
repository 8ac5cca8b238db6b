//! The benchmarks: `cargo bench` runs all, `cargo bench -- script gate` some, `cargo bench -- --quick` all in three
//! minutes.
//!
//! Each benchmark starts the servers that it needs, prints tables, and stores its results in `target/bench-report/`,
//! from which one page is rendered. Run as a test, it only checks that it works. `docs/performance.md` explains the
//! figures.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its tables")]

mod cold;
mod flush;
mod gate;
mod http;
mod ledger;
mod load;
mod peers;
mod proxy;
mod reset;
mod script;
mod support;

use std::{process::ExitCode, time::Instant};

use support::{Scale, gate_process::EMPTY_SERVER};

/// The allocator of the gate's own program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every benchmark, in the order of the report.
const NAMES: &[&str] = &["script", "gate", "http", "proxy", "flush", "cold", "reset", "ledger", "load", "peers"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has(EMPTY_SERVER) {
        return support::gate_process::empty_server().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let scale = if !has("--bench") {
        Scale::Smoke
    } else if has("--quick") {
        Scale::Quick
    } else {
        Scale::Full
    };
    let wanted: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = wanted.iter().find(|name| !NAMES.contains(name)) {
        eprintln!("unknown benchmark {unknown:?}; the benchmarks are {}", NAMES.join(", "));
        return ExitCode::FAILURE;
    }
    for name in NAMES.iter().filter(|name| wanted.is_empty() || wanted.contains(name)) {
        let started = Instant::now();
        match run(name, scale) {
            Ok(()) => println!("{name}: {:.0} s", started.elapsed().as_secs_f64()),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn run(name: &str, scale: Scale) -> anyhow::Result<()> {
    let section = match name {
        "script" => script::run(scale)?,
        "gate" => gate::run(scale)?,
        "http" => http::run(scale)?,
        "proxy" => proxy::run(scale)?,
        "flush" => flush::run(scale)?,
        "cold" => cold::run(scale)?,
        "reset" => reset::run(scale)?,
        "ledger" => ledger::run(scale)?,
        "load" => load::run(scale)?,
        "peers" => peers::run(scale)?,
        other => anyhow::bail!("benchmark {other} is listed, but not implemented"),
    };
    println!("{}\n", section.to_text());
    if scale != Scale::Smoke {
        println!("report: {}", section.keep()?.display());
    }
    Ok(())
}
