//! Runs `quota-gate dev` and `quota-gate serve`, with clients.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{eventually, scratch};

/// Service token of gates that `dev` did not start.
pub(super) const SERVICE_TOKEN: &str = "the token of a chat service";
/// Secret for their JWTs.
pub(super) const JWT_SECRET: &str = "a secret of at least thirty-two bytes";
pub(super) const BINARY: &str = env!("CARGO_BIN_EXE_quota-gate");

/// A process that ends with its test, even if the test fails early.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// The exit status, if the process has ended.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `quota-gate dev` with everything in a folder of its own. Killed when dropped; its servers end with it.
pub(super) struct Dev {
    process: Running,
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
        // A killed process leaves its `dev.json`.
        let _ = fs::remove_file(dir.join("dev.json"));
        let mut process = Running::start(
            Command::new(BINARY)
                .args(["dev", "--port", "0", "--data-dir"])
                .arg(&dir)
                .args(arguments)
                .stdout(log.try_clone().unwrap())
                .stderr(log),
        );
        let file = dir.join("dev.json");
        eventually("dev.json is written", async || {
            if let Some(status) = process.ended() {
                panic!("dev ended with {status}: {}", fs::read_to_string(dir.join("output.log")).unwrap());
            }
            file.exists()
        })
        .await;
        let file = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        Self { process, dir, file, client: Client::new() }
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

    /// Posts a JSON body as a chat service.
    pub(super) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.service(Method::POST, path).json(&body)).await
    }

    /// The user's JWT, made by `quota-gate token`.
    pub(super) fn jwt(&self, user: &str) -> String {
        let output = self.command(&["token", user, "--data-dir", self.dir.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs another command on the same stores.
    pub(super) fn command(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .args(arguments)
            .env("DATABASE_URL", self.text("databaseUrl"))
            .env("REDIS_URL", self.text("redisUrl"))
            .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
            .output()
            .unwrap()
    }

    /// Stops `dev` as Ctrl-C does, and waits for its end.
    pub(super) async fn stop(&mut self) {
        self.signal(Signal::SIGINT);
        let mut status = None;
        eventually("dev ends", async || {
            status = self.process.ended();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success(), "{}", self.output());
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

/// The token's SHA-256 hash, as in the configuration.
pub(super) fn hash_of(token: &str) -> String {
    Sha256::digest(token).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Sends the request; returns status and JSON body.
pub(super) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Another gate process, for example on the stores of a `dev`. Killed when dropped.
pub(super) struct Serve {
    process: Running,
    pub(super) url: String,
    log: PathBuf,
    service_token: String,
    client: Client,
}

impl Serve {
    pub(super) async fn start(dev: &Dev) -> Self {
        Self::start_with(dev, &[]).await
    }

    pub(super) async fn start_with(dev: &Dev, settings: &[(&str, &str)]) -> Self {
        let secrets: Value = serde_json::from_str(&fs::read_to_string(dev.dir.join("secrets.json")).unwrap()).unwrap();
        let mut all = vec![
            ("QUOTA_GATE__AUTH__JWT_SECRET", dev.text("jwtSecret")),
            ("QUOTA_GATE__AUTH__RESERVATION_SECRET", secrets["reservation_secret"].as_str().unwrap()),
        ];
        all.extend_from_slice(settings);
        let command = Self::command(dev.text("databaseUrl"), dev.text("redisUrl"), dev.text("serviceToken"), &all);
        Self::of(command, dev.text("serviceToken")).await
    }

    pub(super) async fn on(database_url: &str, redis_url: &str, settings: &[(&str, &str)]) -> Self {
        Self::of(Self::command(database_url, redis_url, SERVICE_TOKEN, settings), SERVICE_TOKEN).await
    }

    /// Like [`Self::on`], with this limit of file descriptors.
    pub(super) async fn on_with_descriptors(database_url: &str, redis_url: &str, limit: u32) -> Self {
        let settings = [("QUOTA_GATE__SERVER__HEADER_READ_TIMEOUT_MS", "60000")];
        let command = Self::command(database_url, redis_url, SERVICE_TOKEN, &settings);
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" serve"), BINARY]);
        limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self::of(limited, SERVICE_TOKEN).await
    }

    /// The error output of a gate that does not start.
    pub(super) fn refused(database_url: &str, redis_url: &str, settings: &[(&str, &str)]) -> String {
        let output = Self::command(database_url, redis_url, SERVICE_TOKEN, settings).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn command(database_url: &str, redis_url: &str, service_token: &str, settings: &[(&str, &str)]) -> Command {
        let hash = hash_of(service_token);
        let mut command = Command::new(BINARY);
        command
            .arg("serve")
            .env("DATABASE_URL", database_url)
            .env("REDIS_URL", redis_url)
            .env("QUOTA_GATE__SERVER__LISTEN", "127.0.0.1:0")
            .env("QUOTA_GATE__SERVER__STOP_DELAY_MS", "0")
            .env("QUOTA_GATE__AUTH__JWT_SECRET", JWT_SECRET)
            .env("QUOTA_GATE__AUTH__JWT_ISSUER", "test")
            .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
            .env("QUOTA_GATE__AUTH__TOKENS__CHAT__SHA256", format!("[\"{hash}\"]"))
            .env("QUOTA_GATE__AUTH__TOKENS__CHAT__SCOPES", "[consume, read]")
            .envs(settings.iter().copied());
        command
    }

    async fn of(mut command: Command, service_token: &str) -> Self {
        let log = scratch("serve.log");
        command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let mut process = Running::start(&mut command);
        let mut address = None;
        eventually("the gate listens", async || {
            let text = fs::read_to_string(&log).unwrap();
            assert!(process.ended().is_none(), "serve ended: {text}");
            address = text.lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                Some(line["listen"].as_str()?.to_owned())
            });
            address.is_some()
        })
        .await;
        let url = format!("http://{}", address.unwrap());
        Self { process, url, log, service_token: service_token.to_owned(), client: Client::new() }
    }

    /// A request of a chat service.
    pub(super) fn service(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.service_token)
    }

    /// A request with another token.
    pub(super) fn request_as(&self, token: &str, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(token)
    }

    /// Posts a JSON body as a chat service.
    pub(super) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.service(Method::POST, path).json(&body)).await
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(super) fn wait(&mut self) -> ExitStatus {
        self.process.0.wait().unwrap()
    }

    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }
}

/// Command lines of the processes that name this folder or run in it.
pub(super) fn processes_of(dir: &str) -> Vec<String> {
    processes().filter(|process| process.belongs_to(dir)).map(|process| process.command).collect()
}

/// Ids of those processes whose program is `word`.
pub(super) fn pids_of(dir: &str, word: &str) -> Vec<i32> {
    let wanted = |process: &Process| process.belongs_to(dir) && process.program_is(word);
    processes().filter(wanted).map(|process| process.pid).collect()
}

struct Process {
    pid: i32,
    command: String,
    cwd: PathBuf,
}

impl Process {
    fn belongs_to(&self, dir: &str) -> bool {
        self.cwd.starts_with(dir) || self.command.contains(dir)
    }

    /// False for a shell that only names the program.
    fn program_is(&self, word: &str) -> bool {
        self.command.split([' ', ':']).next().is_some_and(|program| program.ends_with(word))
    }
}

fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
        Some(Process { pid, command, cwd: fs::read_link(entry.path().join("cwd")).unwrap_or_default() })
    })
}
