//! The proxy in front of a model server, against the model server alone.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all};
use quota_gate_dev::ModelServer;
use serde_json::json;

use crate::support::{
    Scale,
    gate_process::{Process, SERVICE_TOKEN},
    machine,
    report::{Section, Target},
    rounds::Rounds,
    stores::{Stores, users},
    text,
};

const KEY: &str = "the operator's key";
const STREAMS: usize = 200;
/// Words of an answer. The pause before each is `PACE_MS`.
const WORDS: usize = 50;
const PACE_MS: usize = 20;
/// Words of an answer of a stream alone. Few, so more answers begin.
const WORDS_ALONE: usize = 2;

/// The server that clients call.
#[derive(Clone)]
struct Side {
    url: String,
    token: &'static str,
}

/// Times that clients measured.
#[derive(Default)]
struct Timings {
    first: Vec<Duration>,
    gaps: Vec<Duration>,
    events: usize,
}

/// The rounds of one side.
#[derive(Default, Clone)]
struct Figures {
    first_p50: Rounds,
    first_p99: Rounds,
    gap_p50: Rounds,
    gap_p99: Rounds,
}

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "proxy",
        scale,
        "the proxy in front of a model server",
        "The local model server streams chat completions of 50 words, one every 20 ms, to clients that send the next request as soon as \
         an answer has ended (a client alone: two words). Clients ask directly, and through quota-gate serve, which reserves, \
         reads usage and commits. The first piece is the event that gives the role. Model server and clients are one process, \
         the gate another, Redis and Postgres more. All share the machine's cores, so at 200 streams the gate also takes time \
         from the model server.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let upstream = ModelServer::start(KEY).await?;
    let url = upstream.url();
    let settings = [("QUOTA_GATE__UPSTREAM__URL", url.as_str()), ("QUOTA_GATE__UPSTREAM__KEY", KEY)];
    let gate = Process::gate(&stores, &settings).await?;
    let alone = Side { url, token: KEY };
    let through = Side { url: format!("http://{}/v1", gate.address), token: SERVICE_TOKEN };
    let counts: &[usize] = scale.of(&[4], &[1, STREAMS], &[1, STREAMS]);
    let time = scale.of(Duration::from_millis(100), Duration::from_secs(3), Duration::from_secs(8));
    // Creates the users and opens the connections.
    ask(&through, STREAMS, Duration::ZERO, None).await?;
    let mut figures = vec![[Figures::default(), Figures::default()]; counts.len()];
    let mut cpu_per_event = Rounds::default();
    let mut memory_per_stream = Rounds::default();
    for _ in 0..scale.of(1, 3, 7) {
        for (&streams, figures) in counts.iter().zip(&mut figures) {
            for (side, figures) in [&alone, &through].into_iter().zip(figures) {
                let is_gate = side.token == SERVICE_TOKEN;
                let (cpu, idle) = (machine::cpu_seconds(gate.pid()), machine::resident_mib(gate.pid()));
                let seen = ask(side, streams, time, is_gate.then(|| gate.pid())).await?;
                if is_gate && streams == *counts.last().unwrap_or(&1) {
                    cpu_per_event.push((machine::cpu_seconds(gate.pid()) - cpu) * 1e6 / text::count(seen.0.events));
                    memory_per_stream.push((seen.1 - idle).max(0.0) * 1024.0 / text::count(streams));
                }
                figures.push(seen.0);
            }
        }
    }
    report(section, counts, &figures);
    section.table(
        "Cost of the gate process at the largest number of streams",
        &["", ""],
        vec![
            vec!["CPU per event".into(), format!("{:.1} µs", cpu_per_event.median())],
            vec!["memory per stream, above the idle process".into(), format!("{:.1} kB", memory_per_stream.median())],
        ],
    );
    Ok(())
}

fn report(section: &mut Section, counts: &[usize], figures: &[[Figures; 2]]) {
    let time = |rounds: &Rounds| text::time(Duration::from_secs_f64(rounds.median()));
    let rows = counts.iter().zip(figures).flat_map(|(streams, sides)| {
        ["model server", "through the gate"].into_iter().zip(sides).map(move |(name, side)| {
            vec![
                format!("{streams}: {name}"),
                time(&side.first_p50),
                time(&side.first_p99),
                time(&side.gap_p50),
                time(&side.gap_p99),
            ]
        })
    });
    section.table(
        "By number of streams",
        &["streams: server", "first piece p50", "p99", "between pieces p50", "p99"],
        rows.collect(),
    );
    for (streams, [alone, through]) in counts.iter().zip(figures) {
        let added = |of: fn(&Figures) -> &Rounds| (of(through).median() - of(alone).median()) * 1e3;
        let target = Some(Target::AtMost(1.0));
        section.ratio(
            &format!("added to the first piece, p50, {streams} streams, ms"),
            added(|it| &it.first_p50),
            target,
        );
        section.ratio(
            &format!("added to the first piece, p99, {streams} streams, ms"),
            added(|it| &it.first_p99),
            None,
        );
        section.ratio(&format!("added between pieces, p99, {streams} streams, ms"), added(|it| &it.gap_p99), None);
    }
}

impl Figures {
    fn push(&mut self, mut seen: Timings) {
        let mut percentile = |of: fn(&mut Timings) -> &mut Vec<Duration>, percent: usize| {
            let times = of(&mut seen);
            times.sort_unstable();
            times
                .get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
                .map_or(0.0, Duration::as_secs_f64)
        };
        let (first_p50, first_p99) = (percentile(|it| &mut it.first, 50), percentile(|it| &mut it.first, 99));
        let (gap_p50, gap_p99) = (percentile(|it| &mut it.gaps, 50), percentile(|it| &mut it.gaps, 99));
        self.first_p50.push(first_p50);
        self.first_p99.push(first_p99);
        self.gap_p50.push(gap_p50);
        self.gap_p99.push(gap_p99);
    }
}

/// Runs streams for this long, one at a time per client. Also returns the memory of a process halfway, in MiB.
async fn ask(side: &Side, streams: usize, time: Duration, watched: Option<u32>) -> anyhow::Result<(Timings, f64)> {
    let seen = Arc::new(Mutex::new(Timings::default()));
    let until = Instant::now() + time;
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let senders = users(streams);
    let tasks = senders.iter().cloned().enumerate().map(|(number, user)| {
        let (side, seen, client) = (side.clone(), Arc::clone(&seen), client.clone());
        tokio::spawn(async move {
            // Chats do not begin at the same time.
            tokio::time::sleep(Duration::from_millis((number * WORDS * PACE_MS / streams.max(1)) as u64)).await;
            loop {
                let words = if streams == 1 { WORDS_ALONE } else { WORDS };
                one(&client, &side, (user.as_str(), words), &seen).await?;
                if Instant::now() >= until {
                    return anyhow::Ok(());
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    tokio::time::sleep(time / 2).await;
    let memory = watched.map_or(0.0, machine::resident_mib);
    for done in join_all(tasks).await {
        done??;
    }
    let seen = std::mem::take(&mut *seen.lock().expect("no panic under this lock"));
    Ok((seen, memory))
}

async fn one(
    client: &reqwest::Client,
    side: &Side,
    (user, words): (&str, usize),
    seen: &Mutex<Timings>,
) -> anyhow::Result<()> {
    let message = json!({
        "model": format!("local:words={words},pace-ms={PACE_MS}"), "stream": true,
        "messages": [{"role": "user", "content": "A question of some length, as people ask them"}],
    });
    let started = Instant::now();
    let request = client.post(format!("{}/chat/completions", side.url)).bearer_auth(side.token);
    let response = request.header("X-User-Id", user).json(&message).send().await?.error_for_status()?;
    let (mut pieces, mut first, mut last, mut gaps, mut text) =
        (response.bytes_stream(), None, Instant::now(), Vec::with_capacity(WORDS), Vec::new());
    while let Some(piece) = pieces.next().await {
        let now = Instant::now();
        if first.is_none() {
            first = Some(now - started);
        } else {
            gaps.push(now - last);
        }
        last = now;
        text.extend_from_slice(&piece?);
    }
    let text = String::from_utf8(text)?;
    anyhow::ensure!(text.ends_with("data: [DONE]\n\n"), "the answer is incomplete");
    let mut seen = seen.lock().expect("no panic under this lock");
    seen.events += text.matches("data: ").count();
    seen.first.extend(first);
    seen.gaps.extend(gaps);
    Ok(())
}
