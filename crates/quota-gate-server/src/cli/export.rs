//! `quota-gate export USER`: prints everything that both stores have about a user, as one JSON document.
//!
//! It is written row by row, so a million rows take no memory.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::output::say;
use crate::{app, config::Config};
use quota_gate::{
    audit::verify::Verifier,
    domain::{calendar::Calendar, clock::Clock, journal::Entry, meter::MeterCode, usage::UsageEvent, user_id::UserId},
    store::redis::{Hold, Record},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Id of the user.
    user: String,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let user = UserId::parse(&arguments.user)?;
    let verifier = Verifier {
        redis: app::redis(&config)?,
        postgres: app::settled_postgres(&config).await?,
        partitions: config.partitions()?,
    };
    // Before the rows: what is flushed in between is in both parts.
    let levels = verifier.postgres.all_levels().await?;
    let name = |code| levels.meter(code).map_or("chat", |meter| meter.name.as_str());
    let (record, unflushed) = verifier.journalled(&user, MeterCode::CHAT).await?;
    let mut of_meters = serde_json::Map::new();
    for meter in levels.meters() {
        if let (Some(record), _) = verifier.journalled(&user, meter.code).await? {
            of_meters.insert(meter.name.to_string(), of_record(&record));
        }
    }
    let zone = Calendar::new(config.time_zone()?).time_zone();
    say!("{{");
    say!("\"user\": {},", json!(user.as_str()));
    say!("\"exportedAt\": {},", json!(Clock::machine().now().to_rfc3339()));
    say!("\"timeZone\": {},", json!(zone.name()));
    say!("\"redis\": {{");
    say!("\"record\": {},", record.as_ref().map_or(Value::Null, of_record));
    if !of_meters.is_empty() {
        say!("\"recordsOfMeters\": {},", Value::Object(of_meters));
    }
    let events: Vec<Value> = unflushed
        .iter()
        .flat_map(Entry::events)
        .filter(|e| e.user == user)
        .map(|e| of_event(e, name(e.meter)))
        .collect();
    say!("\"chargesNotInPostgresYet\": {}", Value::Array(events));
    say!("}},");
    say!("\"postgres\": {{");
    let mut open: Option<&'static str> = None;
    verifier
        .postgres
        .export(&user, |table, row| {
            if open == Some(table) {
                say!(",{row}");
            } else {
                let end = if open.is_some() { "]," } else { "" };
                say!("{end}\"{table}\": [{row}");
                open = Some(table);
            }
        })
        .await?;
    say!("{}}}", if open.is_some() { "]" } else { "" });
    say!("}}");
    Ok(ExitCode::SUCCESS)
}

fn of_record(record: &Record) -> Value {
    json!({
        "period": record.period.to_string(),
        "levelCode": record.level.get(),
        "quota": record.quota.get(),
        "ownQuota": record.own_quota,
        "blocked": record.blocked,
        "used": record.used.get(),
        "usedToday": record.used_today.get(),
        "totalUsed": record.total_used,
        "held": record.held.get(),
        "holds": record.holds.iter().map(of_hold).collect::<Vec<_>>(),
    })
}

fn of_hold(hold: &Hold) -> Value {
    let (period, until) = (hold.period.to_string(), hold.expires_at().to_rfc3339());
    json!({ "id": hold.id, "ap": hold.ap.get(), "period": period, "expiresAt": until })
}

fn of_event(event: &UsageEvent, meter: &str) -> Value {
    json!({
        "meter": meter,
        "uuid": event.id,
        "sessionId": event.session.as_str(),
        "period": event.period.to_string(),
        "ap": event.ap.get(),
        "overage": event.overage.get(),
        "kind": event.kind.as_str(),
        "at": event.at.to_rfc3339(),
    })
}
