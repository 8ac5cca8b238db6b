//! The same consume with Limitador on Redis, in process: `limitador-peer REDIS_URL CALLERS USERS`.
//!
//! Each line on standard input is a time in milliseconds. The program runs that long and prints the rate per second.

use std::{
    collections::HashMap,
    io::BufRead,
    sync::Arc,
    time::{Duration, Instant},
};

use limitador::{AsyncRateLimiter, limit::Limit, storage::redis::AsyncRedisStorage};

const MONTH_SECONDS: u64 = 30 * 24 * 3600;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("the URL of a Redis");
    let mut number = || arguments.next().and_then(|text| text.parse::<usize>().ok()).expect("a number");
    let (callers, users) = (number(), number());
    let storage = AsyncRedisStorage::new(&url).await.expect("Redis answers");
    let limiter = Arc::new(AsyncRateLimiter::new_with_storage(Box::new(storage)));
    let conditions: [&str; 0] = [];
    limiter.add_limit(Limit::new("chat", 2_000_000_000, MONTH_SECONDS, conditions, ["user_id"]));

    for line in std::io::stdin().lock().lines() {
        let time = Duration::from_millis(line.expect("a line").trim().parse().expect("milliseconds"));
        let started = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let limiter = Arc::clone(&limiter);
                tokio::spawn(async move {
                    let (namespace, mut pick, mut done) =
                        ("chat".into(), fastrand::Rng::with_seed(caller as u64), 0_u64);
                    while started.elapsed() < time {
                        let user = format!("00000000-0000-8000-8000-{:012}", pick.usize(..users));
                        let context = HashMap::from([("user_id".to_owned(), user)]);
                        let decision = limiter
                            .check_rate_limited_and_update(&namespace, &context, 1, false)
                            .await
                            .expect("a decision");
                        assert!(!decision.limited);
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await.expect("no caller fails");
        }
        println!("{}", done as f64 / started.elapsed().as_secs_f64());
    }
}
