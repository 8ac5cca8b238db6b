//! Shared by gateway tests: a chat service behind a gateway, documented configurations, and gateway processes.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use axum::{Router, extract::State, http::HeaderMap, routing::any};
use reqwest::Method;
use serde_json::json;
use tokio::task::AbortHandle;

use super::process::{JWT_SECRET, SERVICE_TOKEN, Serve};
use crate::support::{World, eventually, scratch};

/// A gate, a chat service, and the port for a gateway.
pub(super) struct Behind {
    pub(super) world: World,
    pub(super) gate: Serve,
    pub(super) chat_port: u16,
    pub(super) port: u16,
    chat: AbortHandle,
}

/// A gateway process that ends with its test.
pub(super) struct Gateway(Child);

impl Behind {
    /// The chat service answers with the user and commits the reservation that the gateway names.
    pub(super) async fn new(settings: &[(&str, &str)]) -> Self {
        let world = World::new().await;
        let gate = Serve::on(&world.database, &world.redis.url(), settings).await;
        let url = gate.url.clone();
        let answer = async |State(url): State<String>, headers: HeaderMap| {
            let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            assert!(header("authorization").is_none(), "the gateway removes credentials");
            if let Some(id) = header("x-quota-reservation").filter(|id| !id.is_empty()) {
                let commit = format!("{url}/api/chat/quota/reservations/{id}/commit");
                let request = reqwest::Client::new().post(commit).bearer_auth(SERVICE_TOKEN).json(&json!({}));
                assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
            }
            format!("hello {}", header("x-quota-user").unwrap_or_default())
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let chat_port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(any(answer)).with_state(url);
        let chat = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { world, gate, chat_port, port, chat }
    }

    /// Sends a message to the gateway as a client would.
    pub(super) async fn ask(&self, jwt: Option<&str>) -> reqwest::Response {
        let request = reqwest::Client::new().post(format!("http://127.0.0.1:{}/chat", self.port)).body("a message");
        // A client must not be able to set the gateway's headers.
        let spoofed = request.header("X-Quota-User", "mallory").header("X-Quota-Reservation", "made-up");
        let request = jwt.into_iter().fold(spoofed, reqwest::RequestBuilder::bearer_auth);
        request.send().await.unwrap()
    }

    pub(super) async fn open(&self) {
        eventually("the gateway listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
    }

    /// Used and held AP.
    pub(super) async fn quota(&self, who: &str) -> (u64, u64) {
        let request = self.gate.service(Method::GET, "/api/chat/quota").header("X-User-Id", who);
        let quota: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        (quota["monthlyUsed"].as_u64().unwrap(), quota["held"].as_u64().unwrap())
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.chat.abort();
    }
}

impl Gateway {
    pub(super) fn start(command: &mut Command) -> Self {
        Self::start_logging(command, Stdio::null())
    }

    /// Like [`Self::start`], with its error output in `log`.
    pub(super) fn start_logging(command: &mut Command, log: impl Into<Stdio>) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The nginx master stops its workers on SIGTERM, but not when it is killed.
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// The code block of docs/gateways.md in `language` that contains `marker`.
pub(super) fn documented(language: &str, marker: &str) -> String {
    let text =
        fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("docs/gateways.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.into_iter().find(|block| block.contains(marker)).expect("the documentation has this block").to_owned()
}

pub(super) fn folder(name: &str, file: &str, text: &str) -> PathBuf {
    let dir = scratch(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(file), text).unwrap();
    dir
}

pub(super) fn jwt(user: &str) -> String {
    let claims = json!({"sub": user, "iss": "test", "aud": "chat", "exp": 4_000_000_000_u64});
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}
