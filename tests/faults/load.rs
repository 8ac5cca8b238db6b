//! The load: clients consume, reserve, commit and release on any gate, and record every answer.
//!
//! A client repeats only requests that are safe to repeat: one with an Idempotency-Key, a commit or a release.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quota_gate::gate::ReservationSigner;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    history::{Event, History, Kind, Outcome},
    installation::{SERVICE_TOKEN, signer},
    plans::{PLAN_USERS, Planner, Plans, WINDOWED},
};

/// Number of plain users in a run. Those of `plans` come after them.
pub(crate) const USERS: usize = 400;
/// These few users send a fifth of the messages. They soon use up their quotas, so denials are tested too.
pub(crate) const BUSY_USERS: usize = 4;
/// These users send another fifth, so they are never unknown to Redis for long.
pub(crate) const HOT_USERS: usize = USERS / 20;
const CLIENTS: u64 = 12;
/// Longest pause of a client between two messages: two cores cannot test thousands of messages per second.
const PAUSE_MAX_MS: u64 = 12;
const AP_MAX: u32 = 7;
/// A request without an answer after this time counts as unknown.
const REQUEST_MAX: Duration = Duration::from_secs(12);
/// How long a client repeats a request.
const REPEAT_MAX: Duration = Duration::from_secs(40);
const REPEAT_PAUSE: Duration = Duration::from_millis(50);
/// Time to live of a reservation. An abandoned one holds its AP this long.
pub(crate) const TTL: Duration = Duration::from_secs(2);
/// One reservation in this many is committed after it has expired.
const LATE_ONE_IN: u32 = 150;

/// Running clients, until [`Load::finish`] stops them.
pub(crate) struct Load {
    pub(crate) began: Instant,
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Vec<Event>>>,
    planner: Option<JoinHandle<Plans>>,
}

/// A gate, and its last known readiness.
struct Target {
    url: String,
    ready: AtomicBool,
}

struct Worker {
    client: Client,
    gates: Arc<[Target]>,
    balanced: bool,
    /// Whether a request with an Idempotency-Key may be repeated at another gate. Not during an upgrade from 0.1.0,
    /// which does not find the answers of newer gates.
    repeats_anywhere: bool,
    signer: ReservationSigner,
    random: fastrand::Rng,
    began: Instant,
    stop: watch::Receiver<bool>,
    events: Vec<Event>,
}

pub(crate) fn user(number: usize) -> String {
    format!("user-{number}")
}

impl Load {
    /// Starts the clients. They choose any gate or, if `balanced`, one that reports ready, as behind a load balancer.
    pub(crate) fn start(gates: Vec<String>, balanced: bool, with_plans: bool, seed: u64) -> Self {
        let (stop, began) = (watch::Sender::new(false), Instant::now());
        let planner = Planner::new(gates.clone(), fastrand::Rng::with_seed(seed), began, stop.subscribe());
        let planner = with_plans.then(|| tokio::spawn(planner.run()));
        let gates: Arc<[Target]> = gates.into_iter().map(|url| Target { url, ready: AtomicBool::new(true) }).collect();
        if balanced {
            tokio::spawn(watch_readiness(Arc::clone(&gates), stop.subscribe()));
        }
        let clients = (0..CLIENTS)
            .map(|number| {
                let worker = Worker {
                    client: Client::builder().timeout(REQUEST_MAX).build().expect("a client"),
                    gates: Arc::clone(&gates),
                    balanced,
                    repeats_anywhere: with_plans,
                    signer: signer(),
                    random: fastrand::Rng::with_seed(seed ^ (number + 1)),
                    began,
                    stop: stop.subscribe(),
                    events: Vec::new(),
                };
                tokio::spawn(worker.run())
            })
            .collect();
        Self { began, stop, clients, planner }
    }

    /// Lets clients finish what they began, and returns all events and what was bought.
    pub(crate) async fn finish(self) -> (History, Plans) {
        self.stop.send_replace(true);
        let mut events = Vec::new();
        for client in self.clients {
            events.extend(client.await.expect("a client does not panic"));
        }
        events.sort_by_key(|event| event.answered);
        let plans = match self.planner {
            Some(planner) => planner.await.expect("a client does not panic"),
            None => Plans::default(),
        };
        (History(events), plans)
    }
}

/// Polls the readiness of the gates, as a load balancer does.
async fn watch_readiness(gates: Arc<[Target]>, mut stop: watch::Receiver<bool>) {
    let client = Client::new();
    let look = async || {
        for gate in &*gates {
            let request = client.get(format!("{}/readyz", gate.url)).timeout(Duration::from_secs(1)).send();
            gate.ready.store(request.await.is_ok_and(|answer| answer.status().is_success()), Ordering::Relaxed);
        }
        sleep(Duration::from_millis(20)).await;
    };
    loop {
        tokio::select! {
            () = look() => {}
            _ = stop.changed() => return,
        }
    }
}

impl Worker {
    async fn run(mut self) -> Vec<Event> {
        while !*self.stop.borrow() {
            let user = match self.random.u8(..5) {
                0 => self.random.usize(..BUSY_USERS),
                1 => self.random.usize(..HOT_USERS),
                2 => USERS + self.random.usize(..PLAN_USERS),
                _ => self.random.usize(..USERS),
            };
            let ap = self.random.u32(1..=AP_MAX);
            let refused = match self.random.u8(..10) {
                _ if WINDOWED.contains(&user) => self.reserve_and_settle(user, ap).await,
                0..=4 => self.consume(user, Kind::Consume, ap, None).await,
                5 => self.consume_until_known(user, ap).await,
                _ => self.reserve_and_settle(user, ap).await,
            };
            let pause = if refused { 30 } else { self.random.u64(0..=PAUSE_MAX_MS) };
            sleep(Duration::from_millis(pause)).await;
        }
        self.events
    }

    /// Sends a consume. Returns true if it was refused or its outcome is unknown.
    async fn consume(&mut self, user: usize, kind: Kind, ap: u32, key: Option<&str>) -> bool {
        let body = json!({"userUuid": crate::load::user(user), "sessionId": "s", "ap": ap, "tokens": ap * 100});
        let (outcome, _) = self.ask(user, kind, ap, "/api/chat/quota/consume", &body, key).await;
        matches!(outcome, Outcome::Refused | Outcome::Unknown)
    }

    async fn consume_until_known(&mut self, user: usize, ap: u32) -> bool {
        let key = self.key();
        let deadline = Instant::now() + REPEAT_MAX;
        let from = self.events.len();
        while self.consume(user, Kind::Consume, ap, Some(&key)).await && Instant::now() < deadline {
            sleep(REPEAT_PAUSE).await;
        }
        if self.are_one_request(from) {
            if let Some(Outcome::Charged { event, .. }) = self.events.last().map(|event| event.outcome)
                && self.random.u8(..4) == 0
            {
                // A repeated request must get the same answer.
                self.consume(user, Kind::Again(event), ap, Some(&key)).await;
            }
            return false;
        }
        true
    }

    /// Merges all attempts into one request with the outcome of the last one, if that is known. Returns whether it is.
    fn are_one_request(&mut self, from: usize) -> bool {
        let known = !matches!(self.events.last().map(|event| event.outcome), Some(Outcome::Refused | Outcome::Unknown));
        if known {
            let sent = self.events[from].sent;
            let last = self.events.len() - 1;
            self.events[from..last].iter_mut().for_each(|attempt| attempt.kind = Kind::Attempt);
            self.events[last].sent = sent;
        }
        known
    }

    fn key(&mut self) -> String {
        Uuid::from_u128(self.random.u128(..)).to_string()
    }

    async fn reserve_and_settle(&mut self, user: usize, ap: u32) -> bool {
        let ttl = TTL.as_secs();
        let body = json!({"userUuid": crate::load::user(user), "sessionId": "s", "ap": ap, "ttlSeconds": ttl});
        // One in four may be repeated until its outcome is known.
        let key = (self.random.u8(..4) == 0).then(|| self.key());
        let deadline = Instant::now() + REPEAT_MAX;
        let from = self.events.len();
        let (hold, answer) = loop {
            let path = "/api/chat/quota/reservations";
            let (outcome, answer) = self.ask(user, Kind::Reserve, ap, path, &body, key.as_deref()).await;
            match outcome {
                Outcome::Held { hold, .. } => break (hold, answer),
                Outcome::Refused | Outcome::Unknown if key.is_some() && Instant::now() < deadline => {
                    sleep(REPEAT_PAUSE).await;
                }
                outcome => return matches!(outcome, Outcome::Refused | Outcome::Unknown),
            }
        };
        self.are_one_request(from);
        let mut id = answer["reservationId"].as_str().unwrap_or_default().to_owned();
        if WINDOWED.contains(&user) {
            // The window has to cover both.
            let meanwhile = self.random.u32(1..=AP_MAX);
            self.consume(user, Kind::Consume, meanwhile, None).await;
        }
        // Long enough that packs are voided and plans change meanwhile.
        let answering_ms = if user < USERS { 60 } else { 600 };
        sleep(Duration::from_millis(self.random.u64(..answering_ms))).await;
        if self.random.u8(..10) == 0 {
            id = self.extend(user, hold, ap, id).await;
        }
        if self.random.u32(..LATE_ONE_IN) == 0 {
            sleep(2 * TTL).await;
        }
        let cost = self.random.u32(1..=ap + 2);
        let (settled, contrary) = match self.random.u8(..10) {
            0 => return false,
            1..=3 => ((Kind::Release(hold), ap), (Kind::Commit(hold), cost)),
            _ => ((Kind::Commit(hold), cost), (Kind::Release(hold), ap)),
        };
        if self.settle(user, settled, &id).await {
            // A repeated settlement must get the same answer, and a contrary one must be rejected.
            match self.random.u8(..8) {
                0 => self.settle(user, settled, &id).await,
                1 => self.settle(user, contrary, &id).await,
                _ => true,
            };
        }
        false
    }

    /// Extends a hold. Returns the id to settle it with.
    async fn extend(&mut self, user: usize, hold: Uuid, ap: u32, id: String) -> String {
        let path = format!("/api/chat/quota/reservations/{id}/extend");
        let (outcome, answer) =
            self.ask(user, Kind::Extend(hold), ap, &path, &json!({"ttlSeconds": TTL.as_secs()}), None).await;
        match (outcome, answer["reservationId"].as_str()) {
            (Outcome::Extended, Some(extended)) => extended.to_owned(),
            _ => id,
        }
    }

    /// Repeats a settlement until its outcome is known. Returns whether the hold was charged or released.
    async fn settle(&mut self, user: usize, (kind, ap): (Kind, u32), id: &str) -> bool {
        let (verb, body) = match kind {
            Kind::Commit(_) => ("commit", json!({"ap": ap, "tokens": 10})),
            _ => ("release", json!({})),
        };
        let path = format!("/api/chat/quota/reservations/{id}/{verb}");
        let deadline = Instant::now() + REPEAT_MAX;
        while Instant::now() < deadline {
            let (outcome, _) = self.ask(user, kind, ap, &path, &body, None).await;
            if !matches!(outcome, Outcome::Refused | Outcome::Unknown) {
                return matches!(outcome, Outcome::Charged { .. } | Outcome::Released);
            }
            sleep(REPEAT_PAUSE).await;
        }
        false
    }

    fn choose(&mut self) -> usize {
        let any = self.random.usize(..self.gates.len());
        let ready = |gate: &usize| self.gates[*gate].ready.load(Ordering::Relaxed);
        let others = (0..self.gates.len()).map(|after| (any + after) % self.gates.len());
        if self.balanced { others.into_iter().find(ready).unwrap_or(any) } else { any }
    }

    async fn ask(
        &mut self,
        user: usize,
        kind: Kind,
        ap: u32,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> (Outcome, Value) {
        let gate = match (kind, self.events.last()) {
            (Kind::Again(_), Some(last)) if !self.repeats_anywhere => last.gate,
            _ => self.choose(),
        };
        let mut request =
            self.client.post(format!("{}{path}", self.gates[gate].url)).bearer_auth(SERVICE_TOKEN).json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let sent = self.began.elapsed();
        let (outcome, answer) = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                match response.json::<Value>().await {
                    Ok(answer) => (self.outcome(kind, status, &answer), answer),
                    // A successful answer was cut off. An error must have a body.
                    Err(_) if status < 400 => (Outcome::Unknown, Value::Null),
                    Err(_) => (Outcome::Rejected(status), Value::Null),
                }
            }
            Err(error) if error.is_connect() => (Outcome::Refused, Value::Null),
            Err(_) => (Outcome::Unknown, Value::Null),
        };
        self.events.push(Event { user, kind, ap, sent, answered: self.began.elapsed(), gate, outcome });
        (outcome, answer)
    }

    fn outcome(&self, kind: Kind, status: u16, answer: &Value) -> Outcome {
        let number = |member: &str| answer[member].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
        let degraded = answer["degraded"] == true;
        match (status, kind) {
            (200, Kind::Consume | Kind::Again(_)) => {
                let event = answer["usageId"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
                Outcome::Charged { event, ap: number("charged"), overage: 0, degraded }
            }
            (200, Kind::Commit(hold)) => {
                Outcome::Charged { event: hold, ap: number("charged"), overage: number("overage"), degraded: false }
            }
            (200, Kind::Extend(_)) => Outcome::Extended,
            (200, _) => Outcome::Released,
            (201, _) => {
                let id = answer["reservationId"].as_str().unwrap_or_default();
                let hold = self.signer.read(id).map(|reservation| reservation.hold).unwrap_or_default();
                Outcome::Held { hold, degraded }
            }
            (202, _) => Outcome::Accepted,
            (429, _) => Outcome::Denied { remaining: number("remaining") },
            (503, _) if answer["indeterminate"] == true => Outcome::Unknown,
            (503, _) => Outcome::Refused,
            (status, _) => Outcome::Rejected(status),
        }
    }
}
