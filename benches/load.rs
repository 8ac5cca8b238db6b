//! Two gate processes under messages at a constant rate: an open loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use quota_gate::{audit::verify::Verifier, domain::user_id::UserId};
use sqlx::PgPool;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{
    Scale,
    callers::{histogram, nanoseconds},
    gate_process::Process,
    http_client::{HttpClient, consume, quota, send_all},
    machine,
    report::{Axis, Line, Plot, Section},
    resp_client::zipf,
    stores::{Stores, flusher, run_sql, users},
    text::{self, count},
};

const P99_MAX: Duration = Duration::from_millis(5);
/// Connections to each gate. Enough that no message waits for one while the gate keeps up.
const CONNECTIONS: usize = 64;
/// Interval at which the clock releases due messages.
const TICK: Duration = Duration::from_micros(50);

/// One step of the load: a rate, held for a while.
struct LoadStep {
    rate: f64,
    reached: f64,
    /// Time from the moment a message was due to its answer.
    latency: Histogram<u64>,
    /// Part of the latency until it was sent: the generator's own delay, and the wait for a free connection.
    late: Histogram<u64>,
}

impl LoadStep {
    /// Returns whether the gates kept up.
    fn holds(&self) -> bool {
        self.latency.value_at_percentile(99.0) <= nanoseconds(P99_MAX) && self.reached > 0.97 * self.rate
    }
}

#[derive(Default)]
struct Answers {
    admitted: AtomicU64,
    denied: AtomicU64,
    other: AtomicU64,
}

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "load",
        scale,
        "messages at a constant rate",
        "Two gate processes with flushers receive messages at a constant rate, whether or not the previous ones are answered. Latency \
         counts from the moment a message was due, so a stall is not hidden; the generator's own delay is shown separately. The \
         100,000 users have four levels with their real quotas (70 % free) and a Zipf distribution, so some use up their quota \
         and are denied. At the end: admitted = charged = rows.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let gates = [
        Process::gate_with_levels(&stores, "free = 100\nbasic = 300\nplus = 1000\npro = 3000", &[]).await?,
        Process::gate_with_levels(&stores, "free = 100\nbasic = 300\nplus = 1000\npro = 3000", &[]).await?,
    ];
    let pool = stores.pool().await?;
    let users = users(scale.of(500, 20_000, 100_000));
    add_users(&pool, &users).await?;
    let requests: Arc<[Vec<u8>]> = users.iter().map(|user| consume(user.as_str())).collect();
    let popular = zipf(users.len(), 1 << 18);
    let answers = Arc::new(Answers::default());
    let resident_before: Vec<f64> = gates.iter().map(|gate| machine::resident_mib(gate.pid())).collect();

    let time = scale.of(Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10));
    let mut steps: Vec<LoadStep> = vec![];
    let (first, increment) = scale.of((200.0, 0.0), (2_000.0, 2_000.0), (1_000.0, 1_000.0));
    // All users are in Redis at the start. `cold` measures users that are not.
    send_all(gates[0].address, users.iter().map(|user| quota(user.as_str())).collect()).await?;
    step(&gates, &requests, &popular, &answers, first, time).await?;
    let (mut rate, mut missed) = (first, 0);
    while missed < scale.of(1, 2, 2) {
        let done = step(&gates, &requests, &popular, &answers, rate, time).await?;
        missed = if done.holds() { 0 } else { missed + 1 };
        steps.push(done);
        rate += increment;
        if scale == Scale::Smoke {
            break;
        }
    }
    let highest = steps.iter().rev().find(|step| step.holds());
    let rows = steps.iter().map(|step| {
        let percentile = |percent| text::time(Duration::from_nanos(step.latency.value_at_percentile(percent)));
        vec![
            text::whole(step.rate),
            text::whole(step.reached),
            percentile(50.0),
            percentile(90.0),
            percentile(99.0),
            percentile(99.9),
            text::time(Duration::from_nanos(step.latency.max())),
            text::time(Duration::from_nanos(step.late.value_at_percentile(50.0))),
            text::time(Duration::from_nanos(step.late.value_at_percentile(99.0))),
        ]
    });
    let columns = ["messages/s due", "answered", "p50", "p90", "p99", "p99.9", "maximum", "sent late p50", "p99"];
    section.table("Latency from the moment a message was due", &columns, rows.collect());
    let highest_rate = highest.map_or(0.0, |step| step.rate);
    section.ratio("highest rate with p99 below 5 ms, messages per second", highest_rate, None);
    plots(section, &steps, highest);
    let resident_after: Vec<f64> = gates.iter().map(|gate| machine::resident_mib(gate.pid())).collect();
    let memory = |before: &f64, after: &f64| vec![format!("{before:.0}"), format!("{after:.0}")];
    section.table(
        "Memory of each gate process, in MiB",
        &["before", "after"],
        resident_before.iter().zip(&resident_after).map(|(before, after)| memory(before, after)).collect(),
    );
    audit(section, &stores, &pool, &answers).await
}

fn plots(section: &mut Section, steps: &[LoadStep], highest: Option<&LoadStep>) {
    let line = |name: &str, percent: f64| Line {
        name: name.to_owned(),
        points: steps
            .iter()
            .map(|step| {
                (step.rate, Duration::from_nanos(step.latency.value_at_percentile(percent)).as_secs_f64() * 1e3)
            })
            .collect(),
    };
    section.plot(Plot {
        title: "Latency by rate".into(),
        x: Axis { label: "messages per second".into(), logarithmic: false },
        y: Axis { label: "milliseconds".into(), logarithmic: true },
        lines: vec![line("p50", 50.0), line("p90", 90.0), line("p99", 99.0), line("p99.9", 99.9)],
    });
    let percentiles = |step: &LoadStep| {
        [50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99]
            .map(|percent| {
                let ms = Duration::from_nanos(step.latency.value_at_percentile(percent)).as_secs_f64() * 1e3;
                (1.0 / (1.0 - percent / 100.0), ms)
            })
            .to_vec()
    };
    let lines = highest
        .into_iter()
        .chain(steps.first())
        .map(|step| Line { name: format!("{}/s", text::whole(step.rate)), points: percentiles(step) });
    section.plot(Plot {
        title: "Latency percentiles: one message in N is slower".into(),
        x: Axis { label: "N (2 is the median, 100 is p99)".into(), logarithmic: true },
        y: Axis { label: "milliseconds".into(), logarithmic: true },
        lines: lines.collect(),
    });
}

/// Sends messages at this rate for a while, alternating between the gates.
async fn step(
    gates: &[Process],
    requests: &Arc<[Vec<u8>]>,
    popular: &Arc<[usize]>,
    answers: &Arc<Answers>,
    rate: f64,
    time: Duration,
) -> anyhow::Result<LoadStep> {
    let due = Arc::new(Semaphore::new(0));
    let next = Arc::new(AtomicU64::new(0));
    let mut connections = JoinSet::new();
    let started = Instant::now();
    for number in 0..CONNECTIONS * gates.len() {
        let mut client = HttpClient::connect(gates[number % gates.len()].address).await?;
        let (due, next, requests, popular, answers) =
            (Arc::clone(&due), Arc::clone(&next), Arc::clone(requests), Arc::clone(popular), Arc::clone(answers));
        let mut pick = fastrand::Rng::with_seed(number as u64);
        connections.spawn(async move {
            let (mut latency, mut late) = (histogram(), histogram());
            while let Ok(permit) = due.acquire().await {
                permit.forget();
                #[expect(clippy::cast_precision_loss, reason = "a number of messages")]
                let was_due = started + Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / rate);
                late.saturating_record(nanoseconds(was_due.elapsed()));
                let answer = client.send(&requests[popular[pick.usize(..popular.len())]]).await?;
                match answer.status {
                    200 => answers.admitted.fetch_add(1, Ordering::Relaxed),
                    429 => answers.denied.fetch_add(1, Ordering::Relaxed),
                    _ => answers.other.fetch_add(1, Ordering::Relaxed),
                };
                latency.saturating_record(nanoseconds(was_due.elapsed()));
            }
            anyhow::Ok((latency, late))
        });
    }
    let clock = std::thread::spawn(move || hand_out(&due, started, rate, time));
    let (mut latency, mut late) = (histogram(), histogram());
    while let Some(ended) = connections.join_next().await {
        let (one, one_late) = ended??;
        latency += one;
        late += one_late;
    }
    clock.join().map_err(|_| anyhow::anyhow!("the clock failed"))?;
    #[expect(clippy::cast_precision_loss, reason = "a number of messages")]
    let reached = latency.len() as f64 / started.elapsed().as_secs_f64();
    Ok(LoadStep { rate, reached, latency, late })
}

/// The clock. It has its own thread, because an async timer ticks in milliseconds.
fn hand_out(due: &Semaphore, started: Instant, rate: f64, time: Duration) {
    let bar = ProgressBar::new(time.as_millis().try_into().unwrap_or(u64::MAX));
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_message(format!("{} messages per second", text::whole(rate)));
    let mut handed_out = 0;
    while started.elapsed() < time {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of messages")]
        // The first message is due immediately.
        let by_now = (started.elapsed().as_secs_f64() * rate) as usize + 1;
        due.add_permits(by_now - handed_out);
        handed_out = by_now;
        bar.set_position(started.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
        std::thread::sleep(TICK);
    }
    bar.finish_and_clear();
    // Released messages are still sent. Then the semaphore closes, which ends the waiting connections.
    while due.available_permits() > 0 {
        std::thread::sleep(TICK);
    }
    due.close();
}

/// Inserts rows for the users, so they are not new.
async fn add_users(pool: &PgPool, users: &[UserId]) -> anyhow::Result<()> {
    let ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
    sqlx::query(
        "insert into chat_quotas (user_uuid, membership_level, period, monthly_quota, quota_reset_at, created_at, updated_at)
         select user_uuid, name, to_char(now() at time zone 'UTC', 'YYYYMM')::int, monthly_quota,
                (date_trunc('month', now() at time zone 'UTC') + interval '1 month') at time zone 'UTC', now() - interval '1 day', now() - interval '1 day'
         from unnest($1::text[]) with ordinality as given (user_uuid, rank)
         join membership_levels on name = case when rank % 100 < 70 then 'free' when rank % 100 < 90 then 'basic' when rank % 100 < 98 then 'plus' else 'pro' end",
    )
    .bind(&ids)
    .execute(pool)
    .await?;
    run_sql(pool, "vacuum analyze chat_quotas").await
}

/// Checks that admitted = charged = rows.
async fn audit(section: &mut Section, stores: &Stores, pool: &PgPool, answers: &Answers) -> anyhow::Result<()> {
    let app = stores.app_with_levels(&[("free", 100), ("basic", 300), ("plus", 1000), ("pro", 3000)]).await?;
    flusher(&app).flush_all().await?;
    let verifier = Verifier::new(&app.gate);
    let verdict = verifier.verify().await?;
    anyhow::ensure!(verdict.agrees(), "log, totals and Redis disagree: {verdict:?}");
    let rows: i64 = sqlx::query_scalar("select count(*) from chat_usage_logs").fetch_one(pool).await?;
    let charged: i64 =
        sqlx::query_scalar("select coalesce(sum(total_used), 0)::bigint from chat_quotas").fetch_one(pool).await?;
    let (admitted, denied, other) = (
        answers.admitted.load(Ordering::Relaxed),
        answers.denied.load(Ordering::Relaxed),
        answers.other.load(Ordering::Relaxed),
    );
    anyhow::ensure!(other == 0, "{other} answers were neither an admission nor a denial");
    anyhow::ensure!(
        i64::try_from(admitted)? == rows && rows == charged,
        "admitted {admitted}, charged {charged}, rows {rows}"
    );
    let whole = |number: u64| text::whole(count(usize::try_from(number).unwrap_or(usize::MAX)));
    section.table(
        "Admitted = charged = rows; and log = totals = Redis for every user",
        &["admitted", "AP charged", "rows", "denied", "other answers"],
        vec![vec![
            whole(admitted),
            text::whole(count(usize::try_from(charged)?)),
            text::whole(count(usize::try_from(rows)?)),
            whole(denied),
            whole(other),
        ]],
    );
    Ok(())
}
