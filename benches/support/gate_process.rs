//! `quota-gate serve` as a separate process, and a server with an empty handler as its baseline.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use axum::{Json, Router, routing::post};
use quota_gate_server::http::{ServerOptions, serve};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use super::stores::{QUOTA, Stores};

pub(crate) const SERVICE_TOKEN: &str = "the token of a chat service";
/// Runs this program as the empty server.
pub(crate) const EMPTY_SERVER: &str = "--empty-server";

/// Runs a program, prints its process id, and kills it when standard input closes, so it ends with this process.
const GUARD: &str = r#""$@" <&- & echo $!; cat >&2; kill -9 $!"#;

/// A server process, stopped on drop.
pub(crate) struct Process {
    child: Child,
    pid: u32,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts a gate on these stores as an operator does, with additional settings.
    pub(crate) async fn gate(stores: &Stores, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::gate_with_levels(stores, &format!("bench = {QUOTA}"), settings).await
    }

    /// Like [`Self::gate`], with these levels.
    pub(crate) async fn gate_with_levels(
        stores: &Stores,
        levels: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        quota_gate_server::app::postgres(&stores.config()?)?.migrate().await?;
        let hash = Sha256::digest(SERVICE_TOKEN).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let config = stores.scratch.path().join("gate.toml");
        fs::write(&config, format!("[levels]\n{levels}\n"))?;
        let log = stores.scratch.path().join(format!("gate-{}.log", fastrand::u64(..)));
        let mut child = Command::new("sh")
            .args(["-c", GUARD, "sh", env!("CARGO_BIN_EXE_quota-gate"), "serve", "--config"])
            .arg(config)
            .env("DATABASE_URL", stores.postgres.url("postgres"))
            .env("REDIS_URL", stores.redis.url())
            .env("QUOTA_GATE__SERVER__LISTEN", "127.0.0.1:0")
            .env("QUOTA_GATE__AUTH__JWT_SECRET", "a secret of at least thirty-two bytes")
            .env("QUOTA_GATE__AUTH__JWT_ISSUER", "bench")
            .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
            .env("QUOTA_GATE__AUTH__TOKENS__CHAT__SHA256", format!("[\"{hash}\"]"))
            .env("QUOTA_GATE__AUTH__TOKENS__CHAT__SCOPES", "[consume, read]")
            .env("QUOTA_GATE__RESETTER__ENABLED", "false")
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let pid = first_line(&mut child)?.parse()?;
        let mut this = Self { child, pid, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        loop {
            let text = fs::read_to_string(&log)?;
            let listen = |line: &str| serde_json::from_str::<Value>(line).ok()?["listen"].as_str()?.parse().ok();
            if let Some(address) = text.lines().find_map(listen) {
                this.address = address;
                return Ok(this);
            }
            anyhow::ensure!(this.child.try_wait()?.is_none(), "the gate does not start: {text}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the empty server.
    pub(crate) fn empty() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(EMPTY_SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (pid, address) = (child.id(), first_line(&mut child)?.parse()?);
        Ok(Self { child, pid, address })
    }

    /// Returns the process id of the server itself.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

/// Reads the first line that a process prints.
pub(crate) fn first_line(child: &mut Child) -> anyhow::Result<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output is not a pipe")?).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

impl Drop for Process {
    fn drop(&mut self) {
        // Closes its standard input, which stops it.
        let _ = self.child.wait();
    }
}

/// Serves until standard input closes: the gate's server loop, with a handler that parses a consume request and returns
/// an answer like the gate's, without a decision.
#[tokio::main]
#[expect(clippy::print_stdout, reason = "reports its address to the parent process")]
pub(crate) async fn empty_server() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let cancelled = CancellationToken::new();
    let stop = cancelled.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        stop.cancel();
    });
    let answer: Json<Value> = Json(json!({
        "allowed": true, "usageId": "0199f1f0-0000-7000-8000-000000000000", "charged": 1, "replayed": false, "quota": {
            "userUuid": "00000000-0000-0000-0000-000000000000", "membershipLevel": "basic", "monthlyQuota": 300, "monthlyUsed": 255,
            "held": 4, "remaining": 41, "usagePercent": 85.0, "todayUsed": 12, "totalUsed": 4210, "period": "2026-11",
            "quotaResetAt": "2026-12-01T00:00:00Z", "timeZone": "UTC", "status": "warn",
            "recommendedUpgrade": {"membershipLevel": "plus", "monthlyQuota": 1000, "additionalAp": 700},
            "version": 1187, "asOf": "2026-11-23T10:00:00.000Z", "source": "redis" }
    }));
    let handler = async |Json(request): Json<Value>, answer: Json<Value>| {
        assert!(request["userUuid"].is_string());
        answer
    };
    let router = Router::new().route("/api/chat/quota/consume", post(move |request| handler(request, answer.clone())));
    let options = ServerOptions {
        stop_delay: Duration::ZERO,
        connections_max: 10_000,
        header_read_timeout: Duration::from_secs(5),
        write_stall_timeout: Duration::from_secs(30),
        drain_timeout: Duration::from_secs(1),
    };
    serve(listener, router, options, cancelled).await;
    Ok(())
}
