//! A running `quota-gate dev`, and clients of it.

use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::support::{eventually, scratch};

const BINARY: &str = env!("CARGO_BIN_EXE_quota-gate");

/// A running `quota-gate dev` with everything in a folder of its own. Killed when dropped; its servers end with it.
pub(super) struct Dev {
    child: Child,
    pub(super) dir: PathBuf,
    pub(super) file: Value,
    client: Client,
}

impl Dev {
    pub(super) async fn start() -> Self {
        let dir = scratch("dev");
        fs::create_dir_all(&dir).unwrap();
        Self::start_in(dir, &[]).await
    }

    pub(super) async fn start_in(dir: PathBuf, arguments: &[&str]) -> Self {
        let log = fs::File::create(dir.join("output.log")).unwrap();
        // One that was killed leaves its file.
        let _ = fs::remove_file(dir.join("dev.json"));
        let mut child = Command::new(BINARY)
            .args(["dev", "--port", "0", "--data-dir"])
            .arg(&dir)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let file = dir.join("dev.json");
        eventually("dev.json is written", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("dev ended with {status}: {}", fs::read_to_string(dir.join("output.log")).unwrap());
            }
            file.exists()
        })
        .await;
        let file = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        Self { child, dir, file, client: Client::new() }
    }

    pub(super) fn text(&self, member: &str) -> &str {
        self.file[member].as_str().unwrap()
    }

    pub(super) fn output(&self) -> String {
        fs::read_to_string(self.dir.join("output.log")).unwrap()
    }

    /// A request without credentials.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.text("url")))
    }

    /// A request of a chat service.
    pub(super) fn service(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(self.text("serviceToken"))
    }

    /// A JSON body posted by a chat service.
    pub(super) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.service(Method::POST, path).json(&body)).await
    }

    /// The user's JWT, by `quota-gate token`.
    pub(super) fn jwt(&self, user: &str) -> String {
        let output = self.command(&["token", user, "--data-dir", self.dir.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Another command on the same stores.
    pub(super) fn command(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .args(arguments)
            .env("DATABASE_URL", self.text("databaseUrl"))
            .env("REDIS_URL", self.text("redisUrl"))
            .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
            .output()
            .unwrap()
    }

    /// Stops it as Ctrl-C does, and waits for its end.
    pub(super) async fn stop(&mut self) {
        self.signal(Signal::SIGINT);
        let child = &mut self.child;
        eventually("dev ends", async || child.try_wait().unwrap().is_some()).await;
        assert!(self.child.wait().unwrap().success(), "{}", self.output());
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and JSON body.
pub(super) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Processes that name this folder on their command line, or work in it.
pub(super) fn processes_of(dir: &str) -> Vec<String> {
    let process = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let command = String::from_utf8_lossy(&fs::read(path.join("cmdline")).ok()?).replace('\0', " ");
        let works_there = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        (works_there || command.contains(dir)).then_some(command)
    };
    fs::read_dir("/proc").unwrap().filter_map(process).collect()
}
