//! Users unknown to Redis: after an inactive month, at their first message, and after a loss of Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use quota_gate::{
    domain::{decision::Decision, user_id::UserId},
    gate::{Gate, GateError},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Scale,
    report::{Axis, Line, Plot, Section, Target},
    resp_client::message,
    rounds::Rounds,
    stores::{Stores, flusher, forget_journal, keep_flushing, run_sql, user},
    text::{self, count},
};

const CALLERS: usize = 1_024;

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "cold",
        scale,
        "users unknown to Redis",
        "1,024 callers in process use each user once. Hot: Redis has the user's record. Cold: only Postgres has the user's row; for \
         users active today, the load also sums up the day's log. New: no store has the user; the row is created and committed \
         to disk before the answer. Then every record and journal entry of Redis is deleted under full load, and the time until \
         recovery is measured.",
    );
    tokio::runtime::Runtime::new()?.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let app = stores.app().await?;
    let mut redis = stores.redis().await?;
    let pool = stores.pool().await?;
    let (mut hot, mut cold, mut today, mut new) =
        (Rounds::default(), Rounds::default(), Rounds::default(), Rounds::default());
    let each = scale.of(200, 20_000, 100_000);
    for round in 0..scale.of(1, 3, 5) {
        let users: Arc<[UserId]> = (round * each..(round + 1) * each).map(user).collect();
        new.push(once_each(&app.gate, &users).await);
        flusher(&app).flush_all().await?;
        hot.push(once_each(&app.gate, &users).await);
        flusher(&app).flush_all().await?;
        forget_records(&mut redis).await?;
        today.push(once_each(&app.gate, &users).await);
        flusher(&app).flush_all().await?;
        forget_records(&mut redis).await?;
        // As if no user had been active since last month.
        run_sql(&pool, "truncate chat_usage_logs").await?;
        run_sql(&pool, "update chat_quotas set updated_at = updated_at - interval '40 days'").await?;
        run_sql(&pool, "vacuum analyze chat_quotas").await?;
        cold.push(once_each(&app.gate, &users).await);
        flusher(&app).flush_all().await?;
    }
    let rows = [("hot", &hot), ("cold", &cold), ("cold, active today", &today), ("new", &new)]
        .map(|(name, rounds)| vec![name.to_owned(), text::whole(rounds.median()), text::ratio(rounds.over(&hot))]);
    section.table(
        &format!("{} users, each once", text::whole(count(each))),
        &["", "consumes/s", "÷ hot"],
        rows.to_vec(),
    );
    section.ratio("cold ÷ hot consume", cold.over(&hot), Some(Target::AtLeast(0.25)));
    section.ratio("cold, active today ÷ hot consume", today.over(&hot), None);
    section.ratio("new ÷ hot consume", new.over(&hot), None);
    loss(section, scale, &stores, &app.gate, each).await?;
    forget_journal(&mut redis).await
}

/// Deletes all data of Redis under full load, and measures the recovery.
async fn loss(section: &mut Section, scale: Scale, stores: &Stores, gate: &Gate, each: usize) -> anyhow::Result<()> {
    let app = stores.app().await?;
    let stop = CancellationToken::new();
    let flushing = keep_flushing(&app, &stop);
    let users: Arc<[UserId]> = (0..each).map(user).collect();
    let (done, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for number in 0..256 {
        let (gate, users, done, over) = (gate.clone(), Arc::clone(&users), Arc::clone(&done), Arc::clone(&over));
        callers.spawn(async move {
            let mut pick = fastrand::Rng::with_seed(number);
            while !over.load(Ordering::Relaxed) {
                match gate.consume(message(users[pick.usize(..users.len())].clone())).await {
                    Ok(_) => done.fetch_add(1, Ordering::Relaxed),
                    Err(GateError::Unavailable { .. }) => {
                        sleep(Duration::from_millis(10)).await;
                        0
                    }
                    Err(error) => panic!("{error}"),
                };
            }
        });
    }
    let tick = Duration::from_millis(100);
    let (before, after) = scale.of((3, 5), (20, 60), (50, 150));
    let mut points = vec![];
    let started = Instant::now();
    let mut last = 0;
    for number in 0..before + after {
        if number == before {
            redis::cmd("FLUSHALL").exec_async(&mut stores.redis().await?).await?;
        }
        sleep(tick).await;
        let now = done.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
        points.push((started.elapsed().as_secs_f64(), (now - last) as f64 / tick.as_secs_f64()));
        last = now;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    stop.cancel();
    flushing.await?;
    let usual = points[..before].iter().map(|point| point.1).fold(0.0, f64::max).max(1.0);
    let lost_at = points[before - 1].0;
    let silent = points[before..].iter().take_while(|point| point.1 == 0.0).count();
    let back = points[before..].iter().find(|point| point.1 >= usual / 2.0).map_or(f64::NAN, |point| point.0 - lost_at);
    section.table(
        "Redis loses everything under full load",
        &["", "seconds"],
        vec![
            vec!["until the first decision".into(), format!("{:.1}", (count(silent) + 1.0) * tick.as_secs_f64())],
            vec!["until half of the best rate before".into(), format!("{back:.1}")],
        ],
    );
    section.plot(Plot {
        title: format!("Redis loses everything at {lost_at:.1} s"),
        x: Axis { label: "seconds".into(), logarithmic: false },
        y: Axis { label: "consumes per second".into(), logarithmic: false },
        lines: vec![Line { name: "256 callers".into(), points }],
    });
    Ok(())
}

/// Charges each user once. Returns the charges per second.
async fn once_each(gate: &Gate, users: &Arc<[UserId]>) -> f64 {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (gate, users, next) = (gate.clone(), Arc::clone(users), Arc::clone(&next));
        callers.spawn(async move {
            while let Some(user) = users.get(next.fetch_add(1, Ordering::Relaxed)) {
                let decision = gate.consume(message(user.clone())).await;
                assert!(matches!(decision, Ok(Decision::Allowed(_))), "{decision:?}");
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("no caller fails");
    }
    count(users.len()) / started.elapsed().as_secs_f64()
}

/// Deletes the records, as the sweeper does for idle users.
async fn forget_records(redis: &mut redis::aio::MultiplexedConnection) -> anyhow::Result<()> {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("qg:*:[bu]:*").query_async(redis).await?;
    for chunk in keys.chunks(1_000) {
        redis::cmd("UNLINK").arg(chunk).exec_async(redis).await?;
    }
    Ok(())
}
