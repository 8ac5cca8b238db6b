//! The flusher, against psql with the bare SQL of the same batches.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use quota_gate::domain::{clock::Clock, user_id::UserId};
use quota_gate_server::app::App;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    Scale,
    callers::{AsyncCall, work_with_pauses},
    report::{Axis, Line, Plot, Section, Target},
    resp_client::{RespClient, zipf},
    rounds::Rounds,
    stores::{Stores, flusher, keep_flushing, run_sql, users, warm},
    text::{self, count},
};

/// Callers of the gate that make the events, so batches are as large as under load.
const CALLERS: usize = 256;
/// Events per bare transaction, as many as in the flusher's transactions.
const BARE_BATCH_EVENTS: usize = 10_000;

struct Bench {
    stores: Stores,
    app: App,
    pool: PgPool,
    users: Arc<[UserId]>,
    /// Ranks of users, drawn with the skew of a real product: a few send many messages.
    skewed: Arc<[usize]>,
}

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "flush",
        scale,
        "from the journal into Postgres",
        "Events created by 256 callers of the gate wait in Redis. The flusher moves them to Postgres exactly once, each commit on \
         disk: log rows by COPY with every index, users' totals, and the watermark. The baselines are psql with the bare SQL of \
         batches of 10,000 rows of the same shape on the same tables (COPY and one update of the users' totals), and the COPY \
         alone. The log is emptied between rounds.",
    );
    tokio::runtime::Runtime::new()?.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let (app, pool) = (stores.app().await?, stores.pool().await?);
    let users = users(scale.of(100, 20_000, 100_000));
    warm(&app.gate, &users).await?;
    let skewed = zipf(users.len(), 1 << 16);
    let bench = Bench { stores, app, pool, users, skewed };
    throughput(&bench, section, scale).await?;
    lag(&bench, section, scale).await?;
    catch_up(&bench, section, scale).await?;
    Ok(())
}

async fn throughput(bench: &Bench, section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let events = scale.of(200, 50_000, 300_000);
    let mut rows = vec![];
    for (name, is_skewed) in [("evenly chosen users", false), ("skewed", true)] {
        let (mut flush, mut bare, mut copy) = (Rounds::default(), Rounds::default(), Rounds::default());
        for _ in 0..scale.of(1, 3, 5) {
            bench.empty_log().await?;
            let made = bench.consume(events, is_skewed).await;
            let started = Instant::now();
            flusher(&bench.app).flush_all().await?;
            flush.push(made / started.elapsed().as_secs_f64());
            for (rounds, with_totals) in [(&mut bare, true), (&mut copy, false)] {
                bench.empty_log().await?;
                let script = bench.bare_sql(events, is_skewed, with_totals)?;
                #[expect(clippy::cast_precision_loss, reason = "a number of events")]
                rounds.push(events as f64 / bench.psql(&script)?.as_secs_f64());
            }
        }
        for (what, rounds) in [("flusher", &flush), ("psql: COPY and totals", &bare), ("psql: COPY alone", &copy)] {
            rows.push(vec![format!("{name}: {what}"), text::whole(rounds.median()), text::ratio(rounds.over(&bare))]);
        }
        let target = (!is_skewed).then_some(Target::AtLeast(0.85));
        section.ratio(&format!("flush ÷ the bare SQL of the same batches, {name}"), flush.over(&bare), target);
    }
    let title = format!("Events per second into Postgres, {} users", text::whole(count(bench.users.len())));
    section.table(&title, &["users: writer", "events/s", "÷ bare"], rows);
    Ok(())
}

/// Measures how far Postgres is behind at a steady rate of messages.
async fn lag(bench: &Bench, section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    bench.empty_log().await?;
    let stop = CancellationToken::new();
    let flushing = keep_flushing(&bench.app, &stop);
    let time = scale.of(Duration::from_millis(300), Duration::from_secs(4), Duration::from_secs(15));
    let resp_client = bench.resp_client(0, false);
    let sending = tokio::spawn(async move {
        let resp_client = |number: usize| resp_client.with_number(number);
        work_with_pauses(CALLERS, time, Duration::from_millis(20), resp_client).await.rate
    });
    let started = Instant::now();
    let mut points = vec![];
    while !sending.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        points.push((started.elapsed().as_secs_f64(), bench.unflushed().await?));
    }
    let rate = sending.await?;
    stop.cancel();
    flushing.await?;
    let mut waiting: Vec<f64> = points.iter().map(|point| point.1).collect();
    waiting.sort_by(f64::total_cmp);
    let middle = waiting.get(waiting.len() / 2).copied().unwrap_or_default();
    let most = waiting.last().copied().unwrap_or_default();
    section.table(
        "Steady load",
        &["messages/s", "waiting stream entries, median", "maximum"],
        vec![vec![text::whole(rate), text::whole(middle), text::whole(most)]],
    );
    section.plot(Plot {
        title: format!("Flush lag at {} messages per second", text::whole(rate)),
        x: Axis { label: "seconds".into(), logarithmic: false },
        y: Axis { label: "stream entries not in Postgres".into(), logarithmic: false },
        lines: vec![Line { name: "waiting".into(), points }],
    });
    Ok(())
}

/// Measures how long the events of ten minutes without Postgres take to flush.
async fn catch_up(bench: &Bench, section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    const MESSAGES_PER_SECOND: usize = 1_000;
    const OUTAGE_SECONDS: usize = 600;
    let events = scale.of(300, 60_000, MESSAGES_PER_SECOND * OUTAGE_SECONDS);
    bench.empty_log().await?;
    // At such a low rate, messages are rarely batched.
    let made = bench.consume_by(4, events, false).await;
    let entries = bench.unflushed().await?;
    let started = Instant::now();
    flusher(&bench.app).flush_all().await?;
    let took = started.elapsed();
    section.table(
        "Catching up after an outage of Postgres (1,000 messages per second for ten minutes)",
        &["events", "stream entries", "duration", "events/s"],
        vec![vec![text::whole(made), text::whole(entries), text::time(took), text::whole(made / took.as_secs_f64())]],
    );
    Ok(())
}

impl Bench {
    /// Charges at least this many messages, and returns how many.
    async fn consume(&self, events: usize, is_skewed: bool) -> f64 {
        self.consume_by(CALLERS, events, is_skewed).await
    }

    async fn consume_by(&self, callers: usize, events: usize, is_skewed: bool) -> f64 {
        let each = events.div_ceil(callers);
        let mut tasks = JoinSet::new();
        for number in 0..callers {
            let mut resp_client = self.resp_client(number, is_skewed);
            tasks.spawn(async move {
                for _ in 0..each {
                    resp_client.act().await;
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no caller fails");
        }
        count(each * callers)
    }

    /// Returns one caller.
    fn resp_client(&self, number: usize, is_skewed: bool) -> RespClient {
        RespClient::new(&self.app.gate, &self.users, is_skewed.then_some(&self.skewed), number)
    }

    async fn unflushed(&self) -> anyhow::Result<f64> {
        let mut entries = 0;
        for partition in self.app.gate.partitions().all() {
            entries += self.app.gate.redis().stream_length(partition, 1).await?.saturating_sub(1);
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of entries")]
        Ok(entries as f64)
    }

    async fn empty_log(&self) -> anyhow::Result<()> {
        for statement in ["truncate chat_usage_logs", "vacuum analyze chat_quotas", "checkpoint"] {
            run_sql(&self.pool, statement).await?;
        }
        Ok(())
    }

    /// Writes a psql script that inserts rows of the same shape, one transaction per batch.
    fn bare_sql(&self, events: usize, is_skewed: bool, with_totals: bool) -> anyhow::Result<PathBuf> {
        let mut pick = fastrand::Rng::with_seed(11);
        let mut sql = String::with_capacity(events * 200);
        let now = now_text();
        for first in (0..events).step_by(BARE_BATCH_EVENTS) {
            let mut totals = std::collections::BTreeMap::<&str, u32>::new();
            sql += "begin;\ncopy chat_usage_logs (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, created_at) from stdin;\n";
            for _ in first..events.min(first + BARE_BATCH_EVENTS) {
                let rank = if is_skewed {
                    self.skewed[pick.usize(..self.skewed.len())]
                } else {
                    pick.usize(..self.users.len())
                };
                let user = self.users[rank].as_str();
                *totals.entry(user).or_default() += 1;
                writeln!(
                    sql,
                    "{}\t{user}\tchat-42\tbench\t{}\t412\t1\t0\tconsume\t{now}",
                    Uuid::new_v4(),
                    &now[..7].replace('-', "")
                )?;
            }
            sql += "\\.\n";
            if with_totals {
                let users: Vec<&str> = totals.keys().copied().collect();
                let aps: Vec<String> = totals.values().map(ToString::to_string).collect();
                writeln!(
                    sql,
                    "update chat_quotas set monthly_used = monthly_used + ap, total_used = total_used + ap, updated_at = '{now}' \
                     from unnest('{{{}}}'::text[], '{{{}}}'::bigint[]) as batch (user_uuid, ap) where chat_quotas.user_uuid = batch.user_uuid;",
                    users.join(","),
                    aps.join(",")
                )?;
            }
            sql += "commit;\n";
        }
        let file = self.stores.scratch.path().join("bare.sql");
        fs::write(&file, sql)?;
        Ok(file)
    }

    fn psql(&self, script: &Path) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let output = Command::new("psql")
            .args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file"])
            .arg(script)
            .arg(self.stores.postgres.url("postgres"))
            .output()?;
        anyhow::ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        Ok(started.elapsed())
    }
}

/// Returns the current time in Postgres' format.
fn now_text() -> String {
    Clock::machine().now().format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}
