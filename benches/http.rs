//! The server over loopback, against a server with an empty handler.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::Value;

use crate::support::{
    Scale,
    callers::{AsyncCall, Work, work},
    gate_process::Process,
    http_client::{HttpClient, consume, quota, request, send_all},
    machine,
    report::{Axis, Plot, Section, Target},
    stores::{Stores, compact, forget_journal, users},
    timings::{Timings, line},
};

const CONNECTIONS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Empty,
    Consume,
    ReserveAndCommit,
    Quota,
}

const SIDES: [(&str, Side); 4] = [
    ("empty handler", Side::Empty),
    ("consume", Side::Consume),
    ("reserve + commit", Side::ReserveAndCommit),
    ("GET quota", Side::Quota),
];

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "http",
        scale,
        "the server over loopback",
        "quota-gate serve is a separate process. The empty handler is another process with the same server loop; it only parses the \
         same JSON and returns what the gate would: no authentication, no request id, no metrics, no Redis. One client thread \
         uses 64 persistent connections. Server, client and Redis share the machine's cores. The flusher is stopped.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let gate = Process::gate(&stores, &[("QUOTA_GATE__FLUSHER__ENABLED", "false")]).await?;
    let empty = Process::empty()?;
    let users = users(scale.of(100, 5_000, 20_000));
    let requests: Arc<[Vec<u8>]> = users.iter().map(|user| consume(user.as_str())).collect();
    let reads: Arc<[Vec<u8>]> = users.iter().map(|user| quota(user.as_str())).collect();
    let reserves: Arc<[Vec<u8>]> = users
        .iter()
        .map(|user| {
            let body = format!(r#"{{"userUuid":"{user}","sessionId":"chat-42","ap":1}}"#);
            request("POST", "/api/chat/quota/reservations", "", &body)
        })
        .collect();
    send_all(gate.address, reads.to_vec()).await?;
    let resident_before = machine::resident_mib(gate.pid());
    let mut redis = stores.redis().await?;
    let time = scale.of(Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(1));
    let counts: &[usize] = scale.of(&[CONNECTIONS], &[CONNECTIONS], &[1, 8, CONNECTIONS, 256]);
    let mut results = vec![vec![Timings::default(); SIDES.len()]; counts.len()];
    for _ in 0..scale.of(1, 5, 7) {
        compact(&mut redis).await?;
        for (&connections, results) in counts.iter().zip(&mut results) {
            for ((_, side), results) in SIDES.iter().zip(results) {
                let (address, requests) = match side {
                    Side::Empty => (empty.address, &requests),
                    Side::Consume => (gate.address, &requests),
                    Side::ReserveAndCommit => (gate.address, &reserves),
                    Side::Quota => (gate.address, &reads),
                };
                let done = load(address, connections, time, requests, *side == Side::ReserveAndCommit).await?;
                results.push(&done);
                forget_journal(&mut redis).await?;
            }
        }
    }
    let resident_after = machine::resident_mib(gate.pid());
    report(section, counts, &results);
    section.table(
        "Memory of the gate process, before and after all of these runs",
        &["", "MiB"],
        vec![
            vec!["before".into(), format!("{resident_before:.0}")],
            vec!["after".into(), format!("{resident_after:.0}")],
        ],
    );
    Ok(())
}

fn report(section: &mut Section, counts: &[usize], results: &[Vec<Timings>]) {
    let rows = counts.iter().zip(results).flat_map(|(connections, results)| {
        SIDES.iter().zip(results).map(move |((name, _), done)| done.row(format!("{connections}: {name}"), &results[0]))
    });
    section.table(
        "By number of connections",
        &["connections: operation", "per second", "÷ empty", "p50", "p99"],
        rows.collect(),
    );
    let at = counts.iter().position(|count| *count == CONNECTIONS).unwrap_or(0);
    let [empty, consume, pair, _] = &results[at][..] else { return };
    section.ratio(
        "HTTP consume ÷ empty handler, 64 connections",
        consume.rate.over(&empty.rate),
        Some(Target::AtLeast(0.65)),
    );
    section.ratio(
        "HTTP: p99 of consume ÷ p99 of the empty handler",
        consume.p99_us.over(&empty.p99_us),
        Some(Target::AtMost(2.5)),
    );
    section.ratio("HTTP reserve + commit ÷ consume, pairs per second", pair.rate.over(&consume.rate), None);
    let of = |side: usize| results.iter().map(move |all| &all[side]);
    section.plot(Plot {
        title: format!("Throughput against latency, {counts:?} connections"),
        x: Axis { label: "operations per second".into(), logarithmic: false },
        y: Axis { label: "microseconds".into(), logarithmic: true },
        lines: vec![
            line("consume, p50", of(1), |timings| &timings.p50_us),
            line("consume, p99", of(1), |timings| &timings.p99_us),
            line("empty handler, p50", of(0), |timings| &timings.p50_us),
            line("empty handler, p99", of(0), |timings| &timings.p99_us),
        ],
    });
}

/// Sends requests on persistent connections, one at a time on each. If `commit`, each is a reservation to be committed.
pub(crate) async fn load(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    requests: &Arc<[Vec<u8>]>,
    commit: bool,
) -> anyhow::Result<Work> {
    let mut clients = vec![];
    for _ in 0..connections {
        clients.push(Some(HttpClient::connect(address).await?));
    }
    let clients = std::cell::RefCell::new(clients);
    Ok(work(connections, time, |number| Caller {
        client: clients.borrow_mut()[number].take().expect("a client per connection"),
        requests: Arc::clone(requests),
        pick: fastrand::Rng::with_seed(number as u64),
        commit,
    })
    .await)
}

struct Caller {
    client: HttpClient,
    requests: Arc<[Vec<u8>]>,
    pick: fastrand::Rng,
    commit: bool,
}

impl AsyncCall for Caller {
    async fn act(&mut self) {
        let first = &self.requests[self.pick.usize(..self.requests.len())];
        let answer = self.client.send(first).await.expect("the server answers");
        assert!(matches!(answer.status, 200 | 201), "{}: {}", answer.status, String::from_utf8_lossy(answer.body));
        if self.commit {
            let reservation: Value = serde_json::from_slice(answer.body).expect("JSON");
            let id = reservation["reservationId"].as_str().expect("an id");
            let request = request("POST", &format!("/api/chat/quota/reservations/{id}/commit"), "", "{}");
            assert_eq!(self.client.send(&request).await.expect("the server answers").status, 200);
        }
    }
}
