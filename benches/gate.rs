//! The gate in process, against one bare scripted `INCRBY` per request: `cargo bench --bench gate`.
//!
//! Starts a Redis and a Postgres of its own. Each line is the median of five interleaved rounds of one second: consumes a second
//! of the whole gate (period roll, holds, journal entry, flusher running), and INCRBYs a second of the same number of callers on
//! one multiplexed connection. Ratios of one run are worth quoting; absolute numbers are this machine's.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quota_gate::{
    app::App,
    config::{Config, Secret},
    dev::{Durability, Lifetime, PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions, ScratchDir},
    domain::{
        ap::Ap,
        decision::Decision,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    gate::{Consume, Gate},
};
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
const USERS: usize = 20_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `cargo test --benches` only wants to know that it runs.
    let smoke = !std::env::args().any(|argument| argument == "--bench");
    let scratch = ScratchDir::new()?;
    let redis = RedisServerOptions { lifetime: Lifetime::Scratch, ..RedisServerOptions::default() };
    let redis = RedisServer::start(&scratch.path().join("redis"), redis).await?;
    let postgres = PostgresServerOptions {
        durability: Durability::Memory,
        lifetime: Lifetime::Scratch,
        ..PostgresServerOptions::default()
    };
    let postgres = PostgresServer::start(&scratch.path().join("postgres"), postgres).await?;
    let mut config = Config::load(None)?;
    config.redis.url = Secret::new(redis.url());
    config.postgres.url = Secret::new(postgres.url("postgres"));
    config.auth.reservation_secret = Secret::new("a secret of at least thirty-two bytes");
    config.levels = [("bench".to_owned(), 2_000_000_000)].into();
    quota_gate::app::postgres(&config)?.migrate().await?;
    let app = App::build(config).await?;
    let stop = CancellationToken::new();
    let flushing = tokio::spawn(app.flusher().run(Duration::from_millis(200), stop.clone()));

    let users: Arc<[UserId]> = (0..USERS).map(|n| UserId::parse(&format!("user-{n}"))).collect::<Result<_, _>>()?;
    warm(&app.gate, &users, if smoke { 200 } else { USERS }).await;
    let connection = redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?;

    println!("{:>8}  {:>12}  {:>14}  {:>6}  {:>10}", "callers", "consume/s", "bare INCRBY/s", "ratio", "batch size");
    let (callers, rounds): (&[usize], usize) = if smoke { (&[4], 1) } else { (&[1, 32, 256, 1024], ROUNDS) };
    for &callers in callers {
        let (mut consumes, mut increments, mut batch_sizes) = (vec![], vec![], vec![]);
        for _ in 0..rounds {
            let before = calls(&connection).await?;
            let gate = app.gate.clone();
            let users = Arc::clone(&users);
            let rate = measure(callers, move |n| consume(gate.clone(), users[n % users.len()].clone())).await;
            consumes.push(rate);
            let after = calls(&connection).await?;
            batch_sizes.push(rate * ROUND.as_secs_f64() / (after - before).max(1.0));
            let connection = connection.clone();
            increments.push(measure(callers, move |n| increment(connection.clone(), n % USERS)).await);
        }
        let (consumes, increments) = (median(consumes), median(increments));
        let batch_size = median(batch_sizes);
        println!(
            "{callers:>8}  {consumes:>12.0}  {increments:>14.0}  {:>6.2}  {batch_size:>10.1}",
            consumes / increments
        );
    }
    stop.cancel();
    flushing.await?;
    Ok(())
}

async fn consume(gate: Gate, user: UserId) {
    let session = SessionId::parse("bench").expect("a session");
    let request = Consume { user, session, ap: Ap::ONE, tokens: Tokens::default(), idempotency_key: None };
    assert!(matches!(gate.consume(request).await, Ok(Decision::Allowed(_))));
}

async fn increment(mut connection: MultiplexedConnection, user: usize) {
    const SCRIPT: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    let script = redis::Script::new(SCRIPT);
    let _: u64 = script.key(format!("bench:{user}")).arg(1).invoke_async(&mut connection).await.expect("Redis answers");
}

/// Brings users into Redis, so that what is measured is the hot path.
async fn warm(gate: &Gate, users: &[UserId], count: usize) {
    for chunk in users[..count].chunks(500) {
        let tasks: Vec<_> = chunk.iter().map(|user| tokio::spawn(consume(gate.clone(), user.clone()))).collect();
        for task in tasks {
            task.await.expect("the user is loaded");
        }
    }
}

/// How many times a second `callers` tasks get `act` done, each one after the other.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    callers: usize,
    act: impl Fn(usize) -> F + Clone + Send + 'static,
) -> f64 {
    let (done, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (act, done, over) = (act.clone(), Arc::clone(&done), Arc::clone(&over));
            tokio::spawn(async move {
                let mut turn = caller * 7919;
                while !over.load(Ordering::Relaxed) {
                    act(turn).await;
                    turn += 104_729;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no caller fails");
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
    let done = done.load(Ordering::Relaxed) as f64;
    done / started.elapsed().as_secs_f64()
}

/// Script calls that Redis has counted.
async fn calls(connection: &MultiplexedConnection) -> anyhow::Result<f64> {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection.clone()).await?;
    let calls =
        stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok());
    Ok(calls.unwrap_or(0.0))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
