//! Programs that embed the gate: the examples, with Redis unavailable between a hold and its commit, and a program
//! outside of the workspace that is built against the packaged crates.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::process::BINARY;
use crate::support::{World, eventually, scratch};

/// An example that runs. It does not outlive its test.
struct Example {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str, world: &World) -> Self {
        let mut process = Command::new(example(name))
            .env("DATABASE_URL", &world.database)
            .env("REDIS_URL", world.redis.url())
            .env("RESERVATION_SECRET", "a secret of at least thirty-two bytes")
            .env("LISTEN", "127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, input, output }
    }

    fn send(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ends_well(&mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the path of an example, which `cargo test --workspace` and `make test-it` build.
fn example(name: &str) -> PathBuf {
    let program = Path::new(BINARY).parent().unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: cargo build --workspace --examples", program.display());
    program
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

async fn is_charged(world: &World, ap: i64) {
    eventually("the usage log has the charge", async || {
        world.number("select coalesce(sum(ap_used), 0)::bigint from chat_usage_logs").await == ap
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embed_example_charges_a_commit_that_postgres_accepted() {
    let mut world = World::new().await;
    let mut example = Example::start("embed", &world);
    assert_eq!(example.line(), "ready");
    example.send("Hello");
    assert_eq!(example.line(), "held: 97 AP remain");
    example.send("Hello, Alice");
    assert_eq!(example.line(), "charged: 2 AP, 98 remain");

    example.send("Are you there?");
    assert_eq!(example.line(), "held: 95 AP remain");
    world.redis.pause();
    example.send("Yes");
    assert_eq!(example.line(), "accepted: charged when Redis is available again");
    world.redis.resume();
    is_charged(&world, 4).await;
    drop(example.input.take());
    example.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chat_example_charges_an_answer_that_ended_while_redis_was_unavailable() {
    let mut world = World::new().await;
    let mut example = Example::start("chat", &world);
    let address = example.line().replace("listening on ", "");
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&str, std::io::Error>>(1);
    let message = futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let request = reqwest::Client::new().post(format!("http://{address}/chat")).header("x-user", "alice");
    let asked = request.body(reqwest::Body::wrap_stream(message)).send();
    let ((), answer) = tokio::join!(async { sender.send(Ok("hello, ")).await.unwrap() }, asked);
    let mut answer = answer.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "hello, ");
    world.redis.pause();
    sender.send(Ok("world")).await.unwrap();
    drop(sender);
    assert_eq!(answer.text().await.unwrap(), "world");
    let accepted = "select count(*) from inbox";
    eventually("Postgres has accepted the commit", async || world.number(accepted).await == 1).await;
    world.redis.resume();
    is_charged(&world, 1).await;
    kill(Pid::from_raw(example.process.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    example.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_outside_the_repository_embeds_the_packaged_crates() {
    let dir = scratch("embedder");
    fs::create_dir_all(dir.join("src")).unwrap();
    let cargo = async |arguments: &[&str], at: &Path| {
        let mut cargo = tokio::process::Command::new(env!("CARGO"));
        cargo
            .args(arguments)
            .current_dir(at)
            .env_remove("SQLX_OFFLINE")
            .env("CARGO_TARGET_DIR", root().join("target/embedder"));
        // An embedding application has a database of its own.
        cargo.env("DATABASE_URL", "postgres://nowhere.invalid/application");
        let output = cargo.output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let packages = ["package", "--quiet", "--allow-dirty", "--no-verify", "-p", "quota-gate", "-p", "quota-gate-axum"];
    cargo(&packages, root()).await;
    let version = env!("CARGO_PKG_VERSION");
    for name in ["quota-gate", "quota-gate-axum"] {
        let archive = root().join(format!("target/embedder/package/{name}-{version}.crate"));
        let unpacked = Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(&dir).status().unwrap();
        assert!(unpacked.success());
    }
    let source = root().join("tests/embedder");
    let manifest = fs::read_to_string(source.join("Cargo.toml")).unwrap();
    let patch = ["quota-gate", "quota-gate-axum"].map(|name| format!("{name} = {{ path = \"{name}-{version}\" }}\n"));
    fs::write(dir.join("Cargo.toml"), format!("{manifest}\n[patch.crates-io]\n{}", patch.concat())).unwrap();
    fs::copy(source.join("main.rs"), dir.join("src/main.rs")).unwrap();
    fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    cargo(&["build", "--quiet"], &dir).await;

    let tree = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"], &dir).await;
    let crates: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains(&"sqlx"), "{tree}");
    for unwanted in [
        "clap",
        "clap_mangen",
        "indicatif",
        "csv",
        "figment",
        "tonic",
        "utoipa",
        "rust-embed",
        "jsonwebtoken",
        "mimalloc",
        "opentelemetry",
        "nix",
        "quota-gate-dev",
    ] {
        assert!(!crates.contains(&unwanted), "embedding the gate brings in {unwanted}");
    }
}
