//! `quota-gate replay`: runs the usage log through proposed levels and prices. Reads only.

mod csv;
mod table;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use chrono::NaiveDate;
use figment::{
    Figment,
    providers::{Format as _, Toml},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::cli::output::{bytes, say};
use crate::{
    app,
    config::Config,
    price_replay::{Levels, Models, PriceReplayBody, proposal},
};
use quota_gate::{
    audit::price_replay::{PriceReplay, ReplayedDays},
    domain::calendar::Calendar,
    store::postgres::Settings,
};

/// Maximum days of a replay.
const DAYS_MAX: u16 = 400;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// TOML file whose section [levels] has the proposed quotas and windows; by default, the present levels.
    #[arg(long, value_name = "FILE")]
    levels: Option<PathBuf>,
    /// TOML file whose section [models] has the proposed prices; by default, each message costs what it did.
    #[arg(long, value_name = "FILE")]
    models: Option<PathBuf>,
    /// First day, for example 2026-11-01.
    #[arg(long, value_name = "DATE")]
    from: NaiveDate,
    /// Last day.
    #[arg(long, value_name = "DATE")]
    to: NaiveDate,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Table,
    Csv,
    Json,
}

#[derive(Deserialize)]
struct LevelsFile {
    levels: Levels,
}

#[derive(Deserialize)]
struct ModelsFile {
    models: Models,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let days = ReplayedDays::new(arguments.from, arguments.to, DAYS_MAX)?;
    let levels = arguments.levels.as_deref().map(|file| read::<LevelsFile>("--levels", file)).transpose()?;
    let models = arguments.models.as_deref().map(|file| read::<ModelsFile>("--models", file)).transpose()?;
    let postgres = app::postgres(config)?;
    postgres.check_schema().await?;
    let time_zone = config.time_zone()?;
    postgres.compare_settings(&Settings { partitions: config.partitions()?, time_zone }).await?;
    let calendar = Calendar::new(time_zone);
    let present = postgres.all_levels().await?;
    let proposal = proposal(&present, levels.map(|file| file.levels), models.map(|file| file.models))?;
    let report = PriceReplay { postgres, calendar }.run(days, proposal).await?;
    let result = PriceReplayBody::new(days, calendar, &present, report);
    match arguments.format {
        Format::Table => table::print(&result),
        Format::Csv => bytes(&csv::rows(&result)?),
        Format::Json => say!("{}", serde_json::to_string_pretty(&result)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a file. Ignores its other sections: it may be a whole configuration.
fn read<T: DeserializeOwned>(flag: &str, file: &Path) -> anyhow::Result<T> {
    // The errors of syntax have the line; the others have the key.
    let content = Figment::from(Toml::file_exact(file)).extract();
    content.map_err(|error| anyhow::anyhow!("{flag} {}: {error}", file.display()))
}
