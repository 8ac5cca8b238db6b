//! A month ends for a million users at the same time, while messages continue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quota_gate::{
    domain::{
        calendar::{AnchorDay, Calendar},
        clock::Clock,
        user_id::UserId,
    },
    jobs::resetter::Trigger,
};
use quota_gate_server::app::App;
use sqlx::PgPool;

use crate::support::{
    Scale,
    callers::{Work, work_with_pauses},
    report::{Section, Target},
    resp_client::RespClient,
    rounds::Rounds,
    stores::{QUOTA, Stores, run_sql, users},
    text::{self, count},
};

/// Callers that send messages meanwhile, with a pause after each.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "reset",
        scale,
        "the end of a month",
        "The resetter rolls due rows (batches of 5,000, locked rows skipped, while messages continue). The baseline is one statement \
         with the same writes: the closed month into chat_quota_months, the row into the new period. Meanwhile, eight callers \
         send messages with a pause of 2 ms.",
    );
    tokio::runtime::Runtime::new()?.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let (app, pool) = (stores.app().await?, stores.pool().await?);
    let talking = users(100);
    futures_util::future::try_join_all(talking.iter().map(|user| app.gate.quota(user))).await?;
    let rows = scale.of(3_000, 100_000, 1_000_000);
    let (mut resetter, mut statement, mut alone, mut alongside, mut beside_statement) =
        (Rounds::default(), Rounds::default(), Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..scale.of(1, 2, 3) {
        make_due(&pool, rows).await?;
        let quiet =
            talk(&app, &talking, scale.of(Duration::from_millis(50), Duration::from_secs(1), Duration::from_secs(5)))
                .await;
        alone.push(quiet.percentile(99.0).as_secs_f64() * 1e6);

        let (rate, talked) = during(&app, &talking, async {
            let started = Instant::now();
            let report = app.resetter().run(Trigger::CommandLine).await?;
            anyhow::ensure!(report.reset_count == rows as u64, "{report:?}");
            Ok(count(rows) / started.elapsed().as_secs_f64())
        })
        .await?;
        resetter.push(rate);
        alongside.push(talked.percentile(99.0).as_secs_f64() * 1e6);

        make_due(&pool, rows).await?;
        let (rate, talked) = during(&app, &talking, async {
            let started = Instant::now();
            run_sql(&pool, &one_statement()).await?;
            Ok(count(rows) / started.elapsed().as_secs_f64())
        })
        .await?;
        statement.push(rate);
        beside_statement.push(talked.percentile(99.0).as_secs_f64() * 1e6);
    }
    let us = |rounds: &Rounds| text::time(Duration::from_secs_f64(rounds.median() / 1e6));
    section.table(
        &format!("{} due rows", text::whole(count(rows))),
        &["", "rows/s", "consume p99 meanwhile"],
        vec![
            vec!["resetter".into(), text::whole(resetter.median()), us(&alongside)],
            vec!["one statement".into(), text::whole(statement.median()), us(&beside_statement)],
            vec!["neither".into(), String::new(), us(&alone)],
        ],
    );
    section.ratio("reset ÷ one statement", resetter.over(&statement), Some(Target::AtLeast(0.8)));
    section.ratio("consume p99 during a reset ÷ before it", alongside.over(&alone), Some(Target::AtMost(2.0)));
    Ok(())
}

/// Inserts rows of the previous month.
async fn make_due(pool: &PgPool, rows: usize) -> anyhow::Result<()> {
    let calendar = Calendar::new(chrono_tz::Tz::UTC);
    let now = calendar.month_at(Clock::machine().now());
    let statements = [
        "delete from chat_quotas where user_uuid like 'due-%'".to_owned(),
        "truncate chat_quota_months".to_owned(),
        format!(
            "insert into chat_quotas (user_uuid, membership_level, period, monthly_quota, monthly_used, quota_reset_at, total_used, created_at, updated_at)
             select 'due-' || md5(number::text), 'bench', {}, {QUOTA}, number % 300, '{}', number, now(), now() from generate_series(1, {rows}) as number",
            now.month_before().id(),
            calendar.period_start(now).to_rfc3339()
        ),
        "vacuum analyze chat_quotas".to_owned(),
        "checkpoint".to_owned(),
    ];
    for statement in statements {
        run_sql(pool, &statement).await?;
    }
    Ok(())
}

/// A single statement that writes the same rows.
fn one_statement() -> String {
    let calendar = Calendar::new(chrono_tz::Tz::UTC);
    let now = calendar.month_at(Clock::machine().now());
    let (period, end) = (now.id(), calendar.period_end(now, AnchorDay::FIRST).to_rfc3339());
    format!(
        "with closed as (
             insert into chat_quota_months (user_uuid, period, membership_level, monthly_quota, used, overage)
             select user_uuid, period, membership_level, monthly_quota, monthly_used, monthly_overage
             from chat_quotas where period < {period}
         )
         update chat_quotas set period = {period}, quota_reset_at = '{end}', monthly_used = 0, monthly_overage = 0, updated_at = now()
         where period < {period}"
    )
}

/// Sends messages while `something` runs.
async fn during<T>(
    app: &App,
    talking: &Arc<[UserId]>,
    something: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Work)> {
    let (over, is_over) = tokio::sync::oneshot::channel();
    let (app, talking) = (app.clone(), Arc::clone(talking));
    let chatting = tokio::spawn(async move {
        let mut all: Option<Work> = None;
        let mut is_over = std::pin::pin!(is_over);
        loop {
            let some = talk(&app, &talking, Duration::from_millis(100)).await;
            match &mut all {
                Some(all) => all.latency += &some.latency,
                None => all = Some(some),
            }
            if futures_util::FutureExt::now_or_never(is_over.as_mut()).is_some() {
                return all.expect("a message was sent");
            }
        }
    });
    let done = something.await?;
    let _ = over.send(());
    Ok((done, chatting.await?))
}

async fn talk(app: &App, talking: &Arc<[UserId]>, time: Duration) -> Work {
    work_with_pauses(CALLERS, time, PAUSE, |number| RespClient::new(&app.gate, talking, None, number)).await
}
