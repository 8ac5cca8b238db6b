//! Users with packs, windows or changing plans, and the client that buys, voids and transfers packs and changes plans.
//!
//! They come after the plain users of the load, so the rules for plain users stay sharp. The client repeats requests
//! until it knows their outcomes, and some of them after that. A pack is bought under one `externalId`, a transfer has
//! one Idempotency-Key, and a void and a level are the same however often they are set.

use std::{ops::Range, time::Duration};

use anyhow::ensure;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    installation::{ADMIN_TOKEN, ASK_MAX, Installation},
    load::{USERS, user},
};

/// Number of these users.
pub(crate) const PLAN_USERS: usize = 24;
/// Users that buy packs. The last of them have windows, too, and the others a small quota of their own.
pub(crate) const BUYERS: Range<usize> = USERS..USERS + 12;
/// Users of the level with windows and bounded concurrency.
pub(crate) const WINDOWED: Range<usize> = USERS + 8..USERS + 16;
/// Users whose level and anchor day change.
pub(crate) const MOVERS: Range<usize> = USERS + 16..USERS + PLAN_USERS;
/// Those of them whose anchor day does not change.
pub(crate) const ANCHORED: Range<usize> = USERS + 16..USERS + 20;

/// The level with windows, as a setting. No run is longer than its window of AP, except in rows that set the clock.
pub(crate) const PLUS: &str =
    r#"{ap = 300, windows = [{every = "10m", ap = 30}, {every = "1m", requests = 40}], concurrency = 3}"#;
pub(crate) const PLUS_QUOTA: u32 = 300;
/// The own quota of buyers without windows.
pub(crate) const BUYER_QUOTA: u32 = 15;
/// A limit of the level `plus`: its length, and how much of it.
pub(crate) const AP_WINDOW: (Duration, u32) = (Duration::from_mins(10), 30);
pub(crate) const REQUEST_WINDOW: (Duration, u32) = (Duration::from_mins(1), 40);
pub(crate) const CONCURRENCY: usize = 3;

/// Most packs of a user that are not voided, and most transfers to a user: the gate refuses the 33rd live grant.
const PACKS_MAX: usize = 14;
const RECEIVED_MAX: usize = 5;
const TRANSFER_AP_MAX: u32 = 4;
const PACK_AP_MAX: u32 = 14;
const PAUSE_MAX_MS: u64 = 60;
const REPEAT_PAUSE: Duration = Duration::from_millis(50);
const REPEAT_MAX: Duration = Duration::from_secs(40);
const REQUEST_MAX: Duration = Duration::from_secs(12);

/// A pack, and the answers to its purchase and its void.
#[derive(Debug, Clone)]
pub(crate) struct Pack {
    pub(crate) user: usize,
    pub(crate) ap: u32,
    pub(crate) external_id: String,
    /// The id in the answer, and when it arrived. `None` if no answer did.
    pub(crate) bought: Option<(Uuid, Duration)>,
    /// When the void was acknowledged.
    pub(crate) voided: Option<Duration>,
}

/// A transfer of AP between two buyers, and the answer.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) ap: u32,
    /// The id in the answer, and when it arrived. `None` if no answer did, or the sender's grants do not cover it.
    pub(crate) accepted: Option<(Uuid, Duration)>,
}

/// What the client did, by the answers that it received.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    /// Whether this client ran at all.
    pub(crate) begun: bool,
    pub(crate) packs: Vec<Pack>,
    pub(crate) transfers: Vec<Transfer>,
    /// Changes of level and anchor day that were acknowledged.
    pub(crate) changes: usize,
    /// Answers that no request of this client may get.
    pub(crate) wrong: Vec<String>,
}

/// The client.
pub(crate) struct Planner {
    pub(crate) gates: Vec<String>,
    pub(crate) random: fastrand::Rng,
    pub(crate) began: Instant,
    pub(crate) stop: watch::Receiver<bool>,
    client: Client,
    done: Plans,
}

/// Gives the users with windows their level, and buyers their own quota.
pub(crate) async fn begin(installation: &Installation) -> anyhow::Result<()> {
    for number in WINDOWED {
        set_plan(installation, number, &json!({"membershipLevel": "plus", "effective": "now"})).await?;
    }
    for number in BUYERS.start..WINDOWED.start {
        set_plan(installation, number, &json!({"membershipLevel": "free"})).await?;
        let path = format!("/api/admin/users/{}/quota", user(number));
        put(installation, &path, &json!({"quota": BUYER_QUOTA, "reason": "buys packs"})).await?;
    }
    Ok(())
}

/// Sets the level, and perhaps the anchor day, of a user.
pub(crate) async fn set_plan(installation: &Installation, number: usize, plan: &Value) -> anyhow::Result<()> {
    let mut body = plan.clone();
    body["userUuid"] = json!(user(number));
    put(installation, "/api/chat/quota/level", &body).await
}

async fn put(installation: &Installation, path: &str, body: &Value) -> anyhow::Result<()> {
    let url = format!("{}{path}", installation.gates[0].url);
    let answer = Client::new().put(url).bearer_auth(ADMIN_TOKEN).json(body).timeout(ASK_MAX).send().await?;
    ensure!(answer.status().is_success(), "PUT {path}: {}", answer.text().await?);
    Ok(())
}

impl Planner {
    pub(crate) fn new(gates: Vec<String>, random: fastrand::Rng, began: Instant, stop: watch::Receiver<bool>) -> Self {
        let client = Client::builder().timeout(REQUEST_MAX).build().expect("a client");
        Self { gates, random, began, stop, client, done: Plans { begun: true, ..Plans::default() } }
    }

    /// Works until the load stops.
    pub(crate) async fn run(mut self) -> Plans {
        while !*self.stop.borrow() {
            match self.random.u8(..10) {
                0..=4 => self.buy().await,
                5 | 6 => self.void().await,
                7 => self.transfer().await,
                _ => self.change_plan().await,
            }
            sleep(Duration::from_millis(self.random.u64(0..=PAUSE_MAX_MS))).await;
        }
        self.done
    }

    async fn buy(&mut self) {
        let number = self.random.usize(BUYERS);
        let live = self.done.packs.iter().filter(|pack| pack.user == number && pack.voided.is_none()).count();
        if live >= PACKS_MAX {
            return;
        }
        let ap = self.random.u32(1..=PACK_AP_MAX);
        let external_id = format!("order-{}", self.done.packs.len());
        let body = json!({
            "userUuid": user(number), "ap": ap, "source": "pack", "externalId": external_id,
            "priority": self.random.u8(..3),
        });
        let place = self.done.packs.len();
        self.done.packs.push(Pack { user: number, ap, external_id, bought: None, voided: None });
        for _ in 0..=u8::from(self.random.u8(..4) == 0) {
            let Some(answer) = self.ask(Method::POST, "/api/chat/quota/grants", &body, None).await else { return };
            let Some(id) = answer["grant"]["id"].as_str().and_then(|id| id.parse().ok()) else {
                self.done.wrong.push(format!("a purchase got {answer}"));
                return;
            };
            match self.done.packs[place].bought {
                Some((first, _)) if first != id => {
                    self.done.wrong.push(format!("a repeated purchase made grant {id}, the first one {first}"));
                }
                Some(_) => {}
                None => self.done.packs[place].bought = Some((id, self.began.elapsed())),
            }
        }
    }

    async fn void(&mut self) {
        let live = |pack: &Pack| pack.voided.is_none().then_some(pack.bought?.0);
        let live: Vec<(usize, Uuid)> =
            self.done.packs.iter().enumerate().filter_map(|(place, pack)| Some((place, live(pack)?))).collect();
        let Some((place, id)) = self.random.choice(live) else { return };
        let path = format!("/api/chat/quota/grants/{id}/void");
        if self.ask(Method::POST, &path, &json!({"reason": "the customer returned it"}), None).await.is_some() {
            self.done.packs[place].voided = Some(self.began.elapsed());
        }
    }

    async fn transfer(&mut self) {
        let (from, to) = (self.random.usize(BUYERS), self.random.usize(BUYERS));
        let received = self.done.transfers.iter().filter(|transfer| transfer.to == to).count();
        if from == to || received >= RECEIVED_MAX {
            return;
        }
        let (place, ap) = (self.done.transfers.len(), self.random.u32(1..=TRANSFER_AP_MAX));
        self.done.transfers.push(Transfer { from, to, ap, accepted: None });
        let body = json!({"fromUserUuid": user(from), "toUserUuid": user(to), "ap": ap, "reason": "a gift"});
        let key = format!("gift-{place}");
        for _ in 0..=u8::from(self.random.bool()) {
            let answer = self.ask(Method::POST, "/api/chat/quota/transfers", &body, Some(&key)).await;
            let id = answer.as_ref().and_then(|answer| answer["transferId"].as_str()?.parse::<Uuid>().ok());
            match (id, self.done.transfers[place].accepted) {
                (Some(id), Some((first, _))) if first != id => {
                    self.done.wrong.push(format!("a repeated transfer is {id}, the first one {first}"));
                }
                (Some(id), None) => self.done.transfers[place].accepted = Some((id, self.began.elapsed())),
                _ => {}
            }
        }
    }

    async fn change_plan(&mut self) {
        let number = self.random.usize(MOVERS);
        let level = if self.random.bool() { "free" } else { "basic" };
        let mut body = json!({"userUuid": user(number), "membershipLevel": level});
        if self.random.bool() {
            body["effective"] = json!("now");
        }
        if !ANCHORED.contains(&number) {
            body["anchorDay"] = json!(self.random.u8(1..=31));
        }
        if self.ask(Method::PUT, "/api/chat/quota/level", &body, None).await.is_some() {
            self.done.changes += 1;
        }
    }

    /// Sends a request until its outcome is known. Returns the answer if it succeeded. One with a key may be refused:
    /// the sender has too little.
    async fn ask(&mut self, method: Method, path: &str, body: &Value, key: Option<&str>) -> Option<Value> {
        let deadline = Instant::now() + REPEAT_MAX;
        while Instant::now() < deadline {
            let gate = &self.gates[self.random.usize(..self.gates.len())];
            let url = format!("{gate}{path}");
            let mut request = self.client.request(method.clone(), url).bearer_auth(ADMIN_TOKEN).json(body);
            if let Some(key) = key {
                request = request.header("Idempotency-Key", key);
            }
            if let Ok(response) = request.send().await {
                let status = response.status();
                let answer = response.json::<Value>().await;
                match answer {
                    Ok(answer) if status.is_success() => return Some(answer),
                    Ok(_) if status.as_u16() == 409 && key.is_some() => return None,
                    Ok(answer) if status.as_u16() != 503 => {
                        self.done.wrong.push(format!("{method} {path} got {status}: {answer}"));
                        return None;
                    }
                    _ => {}
                }
            }
            sleep(REPEAT_PAUSE).await;
        }
        None
    }
}
