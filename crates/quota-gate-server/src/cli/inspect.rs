//! `quota-gate inspect USER`: prints a user's record in Redis and row in Postgres.

use std::process::ExitCode;

use crate::cli::output::say;
use crate::{app, config::Config};
use quota_gate::{
    domain::{
        calendar::Calendar,
        clock::{Clock, instant},
        level::LevelCode,
        user_id::UserId,
    },
    store::redis::Record,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Id of the user.
    user: String,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let user = UserId::parse(&arguments.user)?;
    let (postgres, redis) = (app::settled_postgres(&config).await?, app::redis(&config)?);
    let partition = config.partitions()?.of(&user);
    let calendar = Calendar::new(config.time_zone()?);
    let levels = postgres.all_levels().await?;
    let name = |code: LevelCode| levels.coded(code).map_or("unknown", |level| level.name.as_str());
    let watermark = postgres.watermark(partition.number()).await?;

    say!("user        {user}");
    say!("partition   {partition}, generation {}", watermark.generation);
    match watermark.position {
        Some(position) => say!("flushed to  {}", position.id),
        None => say!("flushed to  (the partition is being opened)"),
    }
    let shown = |record: &Record| {
        say!(
            "redis       generation {}{}",
            record.generation,
            if record.generation == watermark.generation { "" } else { ", not used any more" }
        );
        say!("  period    {}", record.period);
        say!(
            "  level     {}{}",
            name(record.level),
            record.pending.map_or(String::new(), |code| format!(", then {}", name(code)))
        );
        say!("  quota     {} AP, used {}, held {}", record.quota, record.used, record.held);
        say!("  today     {} AP", record.used_today);
        say!("  total     {} AP", record.total_used);
        say!("  version   {} (level version {})", record.version, record.level_version);
        for hold in &record.holds {
            let until = instant(i64::try_from(hold.expiry_ms).unwrap_or_default());
            say!("  hold      {} {} AP of {} until {until}", hold.id, hold.ap, hold.period);
        }
    };
    match redis.record(partition, &user).await? {
        None => say!("redis       no record: it is loaded from Postgres at the next message"),
        Some(record) => shown(&record),
    }
    for meter in levels.meters() {
        if let Some(record) = redis.record_of(partition, &user, meter.code).await? {
            say!("meter       {}", meter.name);
            shown(&record);
        }
    }
    let today = calendar.day_start(calendar.day_at(Clock::machine().now()));
    match postgres.find(&user, today).await? {
        None => say!("postgres    no row: the user was never seen"),
        Some(row) => {
            say!("postgres    updated {}", row.updated_at);
            say!("  period    {}", row.period);
            say!(
                "  level     {}{}",
                name(row.level),
                row.pending.map_or(String::new(), |code| format!(", then {}", name(code)))
            );
            say!("  quota     {} AP, used {}", row.quota, row.used);
            say!("  today     {} AP", row.used_today);
            say!("  total     {} AP", row.total_used);
        }
    }
    for meter in levels.meters() {
        let row = postgres.find_meter(&user, meter.code, today).await?;
        if let Some(row) = row.filter(|row| row.total_used > 0) {
            say!("  {}: used {} AP of {}, in total {} AP", meter.name, row.used, row.quota, row.total_used);
        }
    }
    Ok(ExitCode::SUCCESS)
}
