//! Dual write: the old credits system gets every charge, and no message waits for it.

use std::{
    collections::HashMap,
    fs,
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::post,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::process::{BINARY, Serve};
use crate::support::{World, eventually, scratch};

/// An old credits system that fails on demand.
#[derive(Clone, Default)]
struct Old(Arc<Mutex<Debits>>);

#[derive(Default)]
struct Debits {
    /// By event id, so that a repeated charge counts once.
    taken: HashMap<String, Value>,
    asked: usize,
    is_broken: bool,
}

impl Old {
    /// Returns the URL.
    async fn start(&self) -> String {
        let router = Router::new().route("/debits", post(take).get(balance)).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/debits", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn set_broken(&self, is_broken: bool) {
        self.0.lock().unwrap().is_broken = is_broken;
    }

    fn sum(&self) -> u64 {
        self.0.lock().unwrap().taken.values().map(|charge| charge["ap"].as_u64().unwrap()).sum()
    }
}

async fn take(State(old): State<Old>, headers: HeaderMap, Json(charge): Json<Value>) -> Response {
    let (fate, id) = {
        let mut debits = old.0.lock().unwrap();
        assert_eq!(headers["authorization"], "Bearer old-token");
        let id = headers["idempotency-key"].to_str().unwrap().to_owned();
        assert_eq!(charge["eventId"], id.as_str());
        debits.asked += 1;
        (if debits.is_broken { debits.asked % 3 } else { 9 }, id)
    };
    match fate {
        // In turn: error; charge taken but answer lost; no answer.
        0 => return Response::builder().status(500).body("no".into()).unwrap(),
        1 => {
            old.0.lock().unwrap().taken.insert(id, charge);
            return Response::builder().status(502).body("lost".into()).unwrap();
        }
        2 => std::future::pending().await,
        _ => {}
    }
    old.0.lock().unwrap().taken.insert(id, charge);
    "taken".into_response()
}

async fn balance(State(old): State<Old>, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let debits = old.0.lock().unwrap();
    let of_user = debits.taken.values().filter(|charge| charge["userUuid"] == query["userUuid"].as_str());
    Json(json!({"used": of_user.map(|charge| charge["ap"].as_i64().unwrap()).sum::<i64>()}))
}

fn compare(world: &World, url: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(BINARY)
        .arg("compare")
        .args(arguments)
        .env("DATABASE_URL", &world.database)
        .env("QUOTA_GATE__DUAL_WRITE__URL", url)
        .env("QUOTA_GATE__DUAL_WRITE__TOKEN", "old-token")
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_charge_reaches_the_old_system_once_despite_its_failures_and_a_killed_gate() {
    let (world, old) = (World::new().await, Old::default());
    let url = old.start().await;
    let settings = [
        ("QUOTA_GATE__DUAL_WRITE__URL", url.as_str()),
        ("QUOTA_GATE__DUAL_WRITE__TOKEN", "old-token"),
        ("QUOTA_GATE__DUAL_WRITE__TIMEOUT_MS", "200"),
    ];
    old.set_broken(true);
    let first = Serve::on(&world.database, &world.redis.url(), &settings).await;
    let charge = async |gate: &Serve, who: &str, ap: u32| {
        let body = json!({"userUuid": who, "sessionId": "s", "ap": ap, "tokens": 7});
        gate.post("/api/chat/quota/consume", body).await.0.as_u16()
    };
    for number in 0..20 {
        assert_eq!(
            charge(&first, &format!("user-{}", number % 4), number % 5 + 1).await,
            200,
            "no message is affected"
        );
    }
    assert_eq!(charge(&first, "user-0", 1000).await, 429);
    eventually("the old system has received requests", async || old.0.lock().unwrap().asked > 5).await;
    first.signal(Signal::SIGKILL);
    drop(first);
    old.set_broken(false);
    let second = Serve::on(&world.database, &world.redis.url(), &settings).await;
    assert_eq!(charge(&second, "user-0", 9).await, 200);
    eventually("every charge is delivered", async || {
        world.number("select count(*) from chat_usage_logs").await == 21
            && world.number("select count(*) from dual_writes").await == 0
    })
    .await;
    assert_eq!(old.sum(), 60 + 9);
    assert_eq!(old.0.lock().unwrap().taken.len(), 21, "each charge once, by its id");

    let (agree, text) = compare(&world, &url, &[]);
    assert!(agree && text.contains("4 users, 0 differ"), "{text}");
    old.0.lock().unwrap().taken.retain(|_, charge| charge["ap"] != 9);
    let (agree, text) = compare(&world, &url, &[]);
    assert!(!agree && text.contains("user-0: AP used: gate 24, old system 15"), "{text}");

    let file = scratch("old.csv");
    fs::write(&file, "user,used\nuser-0,24\nuser-1,10\nuser-1,5\nuser-2,15\nuser-3,15\n").unwrap();
    let (agree, text) = compare(&world, "", &["--file", file.to_str().unwrap()]);
    assert!(agree, "{text}");
    fs::write(&file, "user,used\nuser-0,x\n").unwrap();
    let (agree, text) = compare(&world, "", &["--file", file.to_str().unwrap()]);
    assert!(!agree && text.contains("cannot be read"), "{text}");
    let (agree, text) = compare(&world, "", &[]);
    assert!(!agree && text.contains("dual_write.url is not set"), "{text}");
}
