//! Actions of clients: repeated requests, lost connections, and changes of level.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::audit::Allowed;
use crate::{
    installation::{ADMIN_TOKEN, Options, QUOTA, SERVICE_TOKEN},
    load::user,
    run::{Run, Verdict},
};

pub(crate) async fn repeats(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    let client = Client::new();
    let ask = |number: usize, key: &str| {
        let gate = &run.installation.gates[number % 2];
        client
            .post(format!("{}/api/chat/quota/consume", gate.url))
            .bearer_auth(SERVICE_TOKEN)
            .header("Idempotency-Key", key)
            .json(&json!({"userUuid": "repeater", "sessionId": "s", "ap": 3}))
            .send()
    };
    let (mut ids, mut answers) = (std::collections::BTreeSet::new(), 0);
    for round in 0..10 {
        let key = format!("key-{round}");
        for answer in join_all((0..100).map(|number| ask(number, &key))).await {
            let body: Value = answer?.json().await?;
            answers += 1;
            ids.insert(body["usageId"].as_str().unwrap_or("none").to_owned());
        }
    }
    let mut ended = run.end(Allowed::default()).await?;
    let charged =
        ended.installation.number("select count(*) from chat_usage_logs where user_uuid = 'repeater'").await?;
    ended.figure("answers to ten requests", answers);
    ended.figure("charges", charged);
    if charged != 10 || ids.len() != 10 {
        ended.violated(format!("ten requests made {charged} charges and {} different answers", ids.len()));
    }
    Ok(ended.verdict())
}

/// Users whose level changes.
const CHANGED: usize = 5;

pub(crate) async fn levels_change(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    let client = Client::new();
    let mut changed = 0;
    for round in 0..150 {
        let level = if round % 2 == 0 { "basic" } else { "free" };
        let gate = &run.installation.gates[round % 2];
        let answer = client
            .put(format!("{}/api/chat/quota/level", gate.url))
            .bearer_auth(ADMIN_TOKEN)
            .json(&json!({"userUuid": user(round % CHANGED), "membershipLevel": level, "effective": "now"}))
            .send()
            .await?;
        changed += usize::from(answer.status().is_success());
        sleep(Duration::from_millis(10)).await;
    }
    let mut ended = run.end(Allowed { raised: Some((CHANGED, QUOTA + 100)), ..Allowed::default() }).await?;
    ended.figure("changes of level", changed);
    ended.proves("levels were changed", changed > 100);
    let told =
        ended.installation.number("select count(*) from chat_quotas where synced_version < level_version").await?;
    if told > 0 {
        ended.violated(format!("{told} changes of level are not in Redis"));
    }
    Ok(ended.verdict())
}

/// Connections close or stay half open during a request, and holds are never settled.
pub(crate) async fn disconnect(seed: u64) -> anyhow::Result<Verdict> {
    let run = Run::begin(Options::default(), seed).await?;
    let mut random = fastrand::Rng::with_seed(seed);
    let body = json!({"userUuid": "vanisher", "sessionId": "s", "ap": 1}).to_string();
    let request = format!(
        "POST /api/chat/quota/reservations HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {SERVICE_TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut idle = Vec::new();
    for number in 0..400 {
        let gate = &run.installation.gates[number % 2];
        let mut stream = TcpStream::connect(gate.url.trim_start_matches("http://")).await?;
        let sent = random.usize(..=request.len());
        let _ = stream.write_all(&request.as_bytes()[..sent]).await;
        // Most connections close here. Some stay half open and send nothing more.
        if number % 8 == 0 {
            idle.push(stream);
        }
    }
    sleep(Duration::from_secs(6)).await;
    let mut ended_by_gate = 0;
    for stream in &mut idle {
        let mut byte = [0; 1];
        let read = timeout(Duration::from_millis(50), tokio::io::AsyncReadExt::read(stream, &mut byte)).await;
        ended_by_gate += usize::from(read.is_ok());
    }
    let half_open = idle.len();
    drop(idle);
    let mut ended = run.end(Allowed::default()).await?;
    ended.figure("half-open connections that the gate ended or answered", format!("{ended_by_gate} of {half_open}"));
    ended.proves("half-open connections were ended", ended_by_gate * 2 > half_open);
    let quota = Client::new()
        .get(format!("{}/api/chat/quota", ended.installation.gates[0].url))
        .bearer_auth(SERVICE_TOKEN)
        .header("X-User-Id", "vanisher");
    let mut held = Value::Null;
    // The longest of these holds lasts a minute.
    for _ in 0..90 {
        held = quota.try_clone().expect("no body").send().await?.json::<Value>().await?["held"].clone();
        if held == 0 {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    if held != 0 {
        ended.violated(format!("{held} AP are still held a minute after their clients disconnected"));
    }
    Ok(ended.verdict())
}
