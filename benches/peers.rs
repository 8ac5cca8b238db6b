//! The same consume with other rate limiters: rate-limiter-flexible in a bare Node server, Limitador in process.
//!
//! Their programs are in `benches/peers/`, each with its own manifest. The report names those that cannot be run.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;

use crate::http::load;
use crate::support::{
    Scale,
    callers::work,
    gate_process::{Process, first_line},
    http_client::{consume, quota, send_all},
    report::{Section, Target},
    resp_client::RespClient,
    rounds::Rounds,
    stores::{Stores, forget_journal, users, warm},
    text,
};

const CONNECTIONS: usize = 64;
const CALLERS: usize = 256;

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "peers",
        scale,
        "other rate limiters",
        "The same consume is compared with rate-limiter-flexible (ioredis, auto-pipelining) in a bare Node server, over HTTP with 64 \
         persistent connections, and with the limitador crate with its Redis storage, in process with 256 callers on one runtime \
         thread. Both keep one counter per user; neither has a calendar period, holds, a journal or a durable store behind it. \
         All use one Redis with its append-only file. The gate's flusher is stopped.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let time = scale.of(Duration::from_millis(50), Duration::from_millis(700), Duration::from_secs(2));
    let rounds = scale.of(1, 3, 7);
    match node(&stores) {
        Ok(node) => over_http(section, &stores, &node, time, rounds, scale).await?,
        Err(missing) => skip(section, "rate-limiter-flexible", &missing),
    }
    // Compiling it takes a minute, which is too long for the smaller scales.
    if scale == Scale::Full {
        match Limitador::start(&stores) {
            Ok(limitador) => in_process(section, &stores, limitador, time, rounds).await?,
            Err(missing) => skip(section, "limitador", &missing),
        }
    }
    Ok(())
}

fn skip(section: &mut Section, what: &str, why: &anyhow::Error) {
    section.table(&format!("{what}: not measured"), &["why"], vec![vec![format!("{why:#}")]]);
}

async fn over_http(
    section: &mut Section,
    stores: &Stores,
    node: &Node,
    time: Duration,
    rounds: usize,
    scale: Scale,
) -> anyhow::Result<()> {
    let gate = Process::gate(stores, &[("QUOTA_GATE__FLUSHER__ENABLED", "false")]).await?;
    let users = users(scale.of(50, 5_000, 20_000));
    let requests: Arc<[Vec<u8>]> = users.iter().map(|user| consume(user.as_str())).collect();
    send_all(gate.address, users.iter().map(|user| quota(user.as_str())).collect()).await?;
    let sides = [("quota gate", gate.address), ("rate-limiter-flexible", node.address)];
    let mut rates = [Rounds::default(), Rounds::default()];
    let mut p99 = [Rounds::default(), Rounds::default()];
    for _ in 0..rounds {
        for (side, (_, address)) in sides.iter().enumerate() {
            let done = load(*address, CONNECTIONS, time, &requests, false).await?;
            rates[side].push(done.rate);
            p99[side].push(done.percentile(99.0).as_secs_f64());
            forget_journal(&mut stores.redis().await?).await?;
        }
    }
    let rows = sides.iter().zip(rates.iter().zip(&p99)).map(|((name, _), (rate, p99))| {
        vec![(*name).to_owned(), text::whole(rate.median()), text::time(Duration::from_secs_f64(p99.median()))]
    });
    section.table("Over HTTP, 64 connections", &["", "consumes/s", "p99"], rows.collect());
    section.ratio("HTTP consume ÷ rate-limiter-flexible", rates[0].over(&rates[1]), Some(Target::AtLeast(2.0)));
    Ok(())
}

async fn in_process(
    section: &mut Section,
    stores: &Stores,
    mut limitador: Limitador,
    time: Duration,
    rounds: usize,
) -> anyhow::Result<()> {
    let app = stores.app().await?;
    let users = users(Limitador::USERS);
    warm(&app.gate, &users).await?;
    let mut rates = [Rounds::default(), Rounds::default()];
    for _ in 0..rounds {
        let done = work(CALLERS, time, |number| RespClient::new(&app.gate, &users, None, number)).await;
        rates[0].push(done.rate);
        forget_journal(&mut stores.redis().await?).await?;
        rates[1].push(limitador.rate(time)?);
    }
    let rows = [("quota gate", &rates[0]), ("limitador", &rates[1])];
    let rows = rows.map(|(name, rate)| vec![name.to_owned(), text::whole(rate.median())]);
    section.table("In process, 256 callers", &["", "consumes/s"], rows.to_vec());
    section.ratio("consume in process ÷ limitador", rates[0].over(&rates[1]), None);
    Ok(())
}

/// rate-limiter-flexible in a bare Node server, stopped on drop.
struct Node {
    child: Child,
    address: SocketAddr,
}

fn folder(peer: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("benches/peers").join(peer)
}

fn succeed(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {what}"))?;
    anyhow::ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn node(stores: &Stores) -> anyhow::Result<Node> {
    let folder = folder("node");
    succeed(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&folder), "npm ci")?;
    let mut child = Command::new("node")
        .arg("server.mjs")
        .arg(stores.redis.operator_url())
        .current_dir(&folder)
        .env("NODE_ENV", "production")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let port: u16 = first_line(&mut child)?.parse().context("the Node server does not start")?;
    Ok(Node { child, address: ([127, 0, 0, 1], port).into() })
}

impl Drop for Node {
    fn drop(&mut self) {
        // Closes its standard input, which stops it.
        let _ = self.child.wait();
    }
}

/// The limitador crate in a separate program.
struct Limitador {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Limitador {
    const USERS: usize = 20_000;

    fn start(stores: &Stores) -> anyhow::Result<Self> {
        let folder = folder("limitador");
        let target = crate::support::report::target().join("peers");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(&target).current_dir(&folder);
        succeed(&mut build, "cargo build")?;
        let mut child = Command::new(target.join("release/limitador-peer"))
            .args([stores.redis.operator_url(), CALLERS.to_string(), Self::USERS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, input, output })
    }

    fn rate(&mut self, time: Duration) -> anyhow::Result<f64> {
        writeln!(self.input, "{}", time.as_millis())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().context("limitador does not answer")
    }
}

impl Drop for Limitador {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
