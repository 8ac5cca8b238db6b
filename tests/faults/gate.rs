//! A gate process with its own proxies in front of Redis and Postgres.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    installation::{CRON_TOKEN, SERVICE_TOKEN, shared_settings},
    proxy::Proxy,
};

/// Longest time to start or stop: a debug build on a loaded machine, with partitions to open.
const START_MAX: Duration = Duration::from_secs(20);

/// One gate. Killed when dropped.
pub(crate) struct Gate {
    pub(crate) redis: Proxy,
    pub(crate) postgres: Proxy,
    pub(crate) url: String,
    settings: Vec<(String, String)>,
    program: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl Gate {
    /// Starts a gate and waits until it is ready. `{port}` in the URLs stands for the port of the proxy.
    pub(crate) async fn start(
        (program, log): (&Path, PathBuf),
        (redis, redis_url): (Proxy, &str),
        (postgres, postgres_url): (Proxy, &str),
        settings: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut all = vec![
            ("REDIS_URL".to_owned(), redis_url.replace("{port}", &redis.port().to_string())),
            ("DATABASE_URL".to_owned(), postgres_url.replace("{port}", &postgres.port().to_string())),
            ("QUOTA_GATE__SERVER__LISTEN".to_owned(), format!("127.0.0.1:{port}")),
            ("QUOTA_GATE__SERVER__STOP_DELAY_MS".to_owned(), "300".to_owned()),
        ];
        all.extend(shared_settings());
        all.extend_from_slice(settings);
        let (program, url) = (program.to_owned(), format!("http://127.0.0.1:{port}"));
        let mut gate = Self { redis, postgres, url, settings: all, program, log, process: None };
        gate.restart().await?;
        Ok(gate)
    }

    /// Starts the process again on the same port, and waits until it is ready.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        let deadline = Instant::now() + START_MAX;
        while !self.is_ready().await {
            if let Some(status) = self.process.as_mut().and_then(|process| process.try_wait().ok()?) {
                anyhow::bail!("the gate exited with {status}: {}", fs::read_to_string(&self.log)?);
            }
            ensure!(Instant::now() < deadline, "the gate is not ready: {}", fs::read_to_string(&self.log)?);
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Runs another command with this gate's settings. Returns its output, and whether it succeeded.
    pub(crate) fn command(&self, arguments: &[&str]) -> anyhow::Result<(String, bool)> {
        let output = Command::new(env!("CARGO_BIN_EXE_quota-gate"))
            .args(arguments)
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .output()?;
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok((printed, output.status.success()))
    }

    /// Starts another command with this gate's settings.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quota-gate"));
        command.args(arguments).envs(self.settings.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command.spawn()?)
    }

    /// Changes a setting, from the next start on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Runs this program, from the next start on.
    pub(crate) fn runs(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// Starts the process without waiting.
    pub(crate) fn launch(&mut self) -> anyhow::Result<()> {
        self.kill();
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let process = Command::new(&self.program)
            .arg("serve")
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("the gate does not start")?;
        self.process = Some(process);
        Ok(())
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let request = reqwest::Client::new().get(format!("{}/readyz", self.url)).timeout(Duration::from_secs(1));
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            let _ = kill(Pid::from_raw(i32::try_from(process.id()).unwrap_or(i32::MAX)), signal);
        }
    }

    /// Sends SIGTERM and waits for a successful exit.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + START_MAX;
        while let Some(process) = &mut self.process {
            if let Some(status) = process.try_wait()? {
                ensure!(status.success(), "the gate exited with {status}: {}", fs::read_to_string(&self.log)?);
                self.process = None;
            }
            ensure!(Instant::now() < deadline, "the gate does not stop");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Counts the log lines that contain this text.
    pub(crate) fn logged(&self, text: &str) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().lines().filter(|line| line.contains(text)).count()
    }

    /// Returns a metric, summed over its labels. `None` if the gate does not export it.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = reqwest::get(format!("{}/metrics", self.url)).await.ok()?.text().await.ok()?;
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .reduce(|sum, value| Some(sum? + value?))?
    }

    /// Counts the items that wait for Postgres or Redis, by `GET /api/chat/quota/reset`.
    pub(crate) async fn backlog(&self) -> Option<u64> {
        let health = self.health().await?;
        Some(health["flushLag"]["events"].as_u64()? + health["inbox"].as_u64()?)
    }

    /// Returns how many seconds usage has waited for Postgres.
    pub(crate) async fn lag_seconds(&self) -> Option<u64> {
        self.health().await?["flushLag"]["seconds"].as_u64()
    }

    async fn health(&self) -> Option<Value> {
        let request =
            reqwest::Client::new().get(format!("{}/api/chat/quota/reset", self.url)).timeout(Duration::from_secs(2));
        let health: Value = request.send().await.ok()?.json().await.ok()?;
        let unknown = ["does not answer", "is being opened"];
        let mut problems = health["problems"].as_array()?.iter().filter_map(Value::as_str);
        if problems.any(|problem| unknown.iter().any(|words| problem.contains(words))) {
            return None;
        }
        Some(health)
    }

    /// Charges one AP to this user. Returns the usage event if Redis decided.
    pub(crate) async fn charge(&self, user: &str) -> Option<Uuid> {
        let request = reqwest::Client::new()
            .post(format!("{}/api/chat/quota/consume", self.url))
            .bearer_auth(SERVICE_TOKEN)
            .json(&json!({"userUuid": user, "sessionId": "probe"}))
            .timeout(Duration::from_secs(2));
        let answer: Value = request.send().await.ok()?.error_for_status().ok()?.json().await.ok()?;
        if answer["degraded"] == true { None } else { answer["usageId"].as_str()?.parse().ok() }
    }

    /// Sends a request to the API, again while it is refused. Returns the status and the answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let request = reqwest::Client::new()
                .post(format!("{}{path}", self.url))
                .bearer_auth(SERVICE_TOKEN)
                .json(body)
                .timeout(Duration::from_secs(5));
            let response = request.send().await?;
            let status = response.status().as_u16();
            if status != 503 {
                return Ok((status, response.json().await?));
            }
            ensure!(Instant::now() < deadline, "{path} is refused: {}", response.text().await?);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs the resetter. Returns whether it succeeded.
    pub(crate) async fn reset(&self) -> bool {
        let url = format!("{}/api/chat/quota/reset", self.url);
        let request = reqwest::Client::new().post(url).bearer_auth(CRON_TOKEN).timeout(Duration::from_secs(20));
        request.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Returns the AP that this user's holds reserve now.
    pub(crate) async fn held(&self, user: &str) -> Option<u64> {
        let request = reqwest::Client::new()
            .get(format!("{}/api/chat/quota", self.url))
            .bearer_auth(SERVICE_TOKEN)
            .header("X-User-Id", user)
            .timeout(Duration::from_secs(2));
        request.send().await.ok()?.json::<Value>().await.ok()?["held"].as_u64()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
        self.kill();
    }
}
