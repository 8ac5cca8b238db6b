//! `quota-gate reset`: runs the resetter once.

use std::process::ExitCode;

use crate::cli::output::say;
use crate::{app::App, config::Config};
use quota_gate::jobs::resetter::Trigger;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let app = App::for_command(config).await?;
    let report = app.resetter().run(Trigger::CommandLine).await?;
    say!(
        "{} rows reset, {} batches failed, {} ms",
        report.reset_count,
        report.failed_count,
        report.duration.as_millis()
    );
    Ok(if report.failed_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
