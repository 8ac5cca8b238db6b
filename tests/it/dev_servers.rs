//! The private servers: they keep their data, do not disturb other servers, and end with their owner.

use std::{
    env, fs,
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use quota_gate_dev::{
    DataDir, DevError, Lifetime, PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions, ScratchDir,
};
use sqlx::{Connection, PgConnection};

use crate::support::{self, eventually, scratch};

/// The variable that names the file to which [`owner_to_be_killed`] reports its servers. Set only for its process.
const REPORT: &str = "QUOTA_GATE_TEST_OWNER_REPORT";

#[tokio::test]
async fn redis_keeps_its_data_and_port_over_restart_and_kill() {
    let mut redis = support::redis().await;
    let url = redis.url();
    set(&url, "qg:a", 1).await;
    redis.restart().await.unwrap();
    assert_eq!((redis.url(), get(&url, "qg:a").await), (url.clone(), Some(1)));
    set(&url, "qg:a", 2).await;
    redis.kill().await;
    assert!(!redis.is_running());
    redis.restart().await.unwrap();
    assert_eq!(get(&url, "qg:a").await, Some(2));
}

#[tokio::test]
async fn postgres_keeps_its_data_over_restart_and_kill() {
    let mut postgres = support::postgres().await;
    postgres.create_database("a \"b\"").await.unwrap();
    postgres.create_database("a \"b\"").await.unwrap();
    postgres.create_database("kept").await.unwrap();
    let url = postgres.url("kept");
    sql(&url, "create table t as select 1 as n").await.unwrap();
    postgres.restart().await.unwrap();
    sql(&url, "insert into t values (2)").await.unwrap();

    // A busy backend does not survive either.
    let mut busy = PgConnection::connect(&url).await.unwrap();
    let (backend,): (i32,) = sqlx::query_as("select pg_backend_pid()").fetch_one(&mut busy).await.unwrap();
    assert!(is_alive(backend.unsigned_abs()));
    postgres.kill().await;
    assert!(!postgres.is_running());
    eventually("the backend has ended", async || !is_alive(backend.unsigned_abs())).await;

    postgres.restart().await.unwrap();
    assert_eq!(sql(&url, "select sum(n) from t").await.unwrap(), 3);
}

#[tokio::test]
async fn postgres_starts_despite_the_pid_file_of_a_crash() {
    let mut postgres = support::postgres().await;
    postgres.kill().await;
    let pid_file = postgres.data().join("postmaster.pid");
    let note = fs::read_to_string(&pid_file).unwrap();
    // The dead server's process id now belongs to another process, which its account could signal.
    let account = fs::metadata(&pid_file).unwrap().uid();
    let bystander = Command::new("/bin/sleep").arg("60").uid(account).spawn();
    let mut bystander = Reaped(bystander.unwrap());
    let (_, rest) = note.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", bystander.0.id())).unwrap();
    postgres.restart().await.unwrap();
    assert!(bystander.0.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn each_test_has_its_own_database() {
    let (one, other) = (support::database().await, support::database().await);
    assert_ne!(one, other);
    sql(&one, "create table only_here as select 1").await.unwrap();
    assert!(sql(&other, "select count(*) from only_here").await.is_err());
}

#[tokio::test]
async fn two_servers_run_side_by_side() {
    let (one, other) = tokio::join!(support::redis(), support::redis());
    set(&one.url(), "qg:a", 1).await;
    assert_eq!(get(&other.url(), "qg:a").await, None);
}

#[tokio::test]
async fn start_on_a_taken_port_names_the_port() {
    let one = support::redis().await;
    let options = RedisServerOptions { port: Some(one.port()), ..RedisServerOptions::default() };
    let outcome = RedisServer::start(&scratch("redis"), options).await;
    assert!(matches!(outcome, Err(DevError::PortTaken { port, .. }) if port == one.port()));
}

#[tokio::test]
async fn failed_start_reports_the_log() {
    let options = RedisServerOptions { extra: vec!["no-such-setting 1".into()], ..RedisServerOptions::default() };
    let error = RedisServer::start(&scratch("redis"), options).await.unwrap_err();
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}

#[tokio::test]
async fn dropped_server_has_ended() {
    let redis = support::redis().await;
    let pid = redis.pid();
    assert!(is_alive(pid));
    drop(redis);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn paused_server_answers_after_resume_and_can_be_stopped() {
    let mut redis = support::redis().await;
    let url = redis.url();
    redis.pause();
    let answer = tokio::spawn(async move { set(&url, "qg:a", 1).await });
    eventually("the server is paused", async || {
        fs::read_to_string(format!("/proc/{}/stat", redis.pid())).map_or(true, |stat| stat.contains(") T "))
    })
    .await;
    assert!(!answer.is_finished());
    redis.resume();
    answer.await.unwrap();
    redis.pause();
    redis.stop().await;
    assert!(!redis.is_running());
}

#[tokio::test]
async fn server_waits_until_the_previous_one_on_its_data_has_ended() {
    let dir = scratch("redis");
    let mut one = RedisServer::start(&dir, RedisServerOptions::default()).await.unwrap();
    let (stopped, other) = tokio::join!(
        async {
            set(&one.url(), "qg:a", 1).await;
            one.stop().await;
        },
        RedisServer::start(&dir, RedisServerOptions::default()),
    );
    let () = stopped;
    assert_eq!(get(&other.unwrap().url(), "qg:a").await, Some(1));
}

#[tokio::test]
async fn servers_and_scratch_end_with_a_killed_owner() {
    let report = tempfile::NamedTempFile::new().unwrap();
    let owner = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "dev_servers::owner_to_be_killed"])
        .env(REPORT, report.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut owner = Reaped(owner.unwrap());
    let lines = async || fs::read_to_string(report.path()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    eventually("the owner has started its servers", async || lines().await.len() == 4).await;
    let (scratch, pids) = {
        let mut lines = lines().await.into_iter();
        (PathBuf::from(lines.next().unwrap()), lines.map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
    };
    assert!(pids.iter().all(|pid| is_alive(*pid)) && scratch.exists());
    owner.0.kill().unwrap();
    owner.0.wait().unwrap();
    eventually("its servers have ended", async || !pids.iter().any(|pid| is_alive(*pid))).await;
    eventually("its scratch directory is removed", async || !scratch.exists()).await;
}

/// Not a test: starts servers in a process that the test above kills.
#[tokio::test]
#[ignore = "the process of another test"]
async fn owner_to_be_killed() {
    let Some(report) = env::var_os(REPORT) else { return };
    let scratch = ScratchDir::new().unwrap();
    let kept = RedisServer::start(&scratch.path().join("kept"), RedisServerOptions::default()).await.unwrap();
    let options = RedisServerOptions { lifetime: Lifetime::Scratch, ..RedisServerOptions::default() };
    let redis = RedisServer::start(&scratch.path().join("redis"), options).await.unwrap();
    let postgres =
        PostgresServer::start(&scratch.path().join("postgres"), PostgresServerOptions::default()).await.unwrap();
    let text = format!("{}\n{}\n{}\n{}\n", scratch.path().display(), kept.pid(), redis.pid(), postgres.pid());
    fs::OpenOptions::new().append(true).open(report).unwrap().write_all(text.as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn data_directory_belongs_to_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let data = DataDir::open(&dir).unwrap();
    let pid = std::process::id().to_string();
    assert!(matches!(DataDir::open(&dir), Err(DevError::InUse { holder, .. }) if holder.contains(&pid)));
    drop(data);
    // The lock file remains, as after a crash. Only the lock counts.
    assert!(dir.join("dev.lock").exists());
    DataDir::open(&dir).unwrap();
}

#[tokio::test]
async fn servers_run_below_a_directory_that_their_account_cannot_reach() {
    // Only its owner can enter the directory.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let dir = dir.path().join("data");
    let data = DataDir::open(&dir).unwrap();
    let mut redis = RedisServer::start(&data.redis(), RedisServerOptions::default()).await.unwrap();
    set(&redis.url(), "qg:a", 1).await;
    redis.stop().await;
    let servers = fs::canonicalize(dir.join("servers")).unwrap();
    drop(data);

    let data = DataDir::open(&dir).unwrap();
    let redis = RedisServer::start(&data.redis(), RedisServerOptions::default()).await.unwrap();
    assert_eq!(get(&redis.url(), "qg:a").await, Some(1));
    drop((redis, data));

    let data = DataDir::open_fresh(&dir).await.unwrap();
    let redis = RedisServer::start(&data.redis(), RedisServerOptions::default()).await.unwrap();
    assert_eq!(get(&redis.url(), "qg:a").await, None);
    drop((redis, data));

    let _ = fs::remove_dir_all(servers);
}

#[tokio::test]
async fn only_a_data_directory_is_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("thesis.tex");
    fs::write(&file, "").unwrap();
    assert!(matches!(DataDir::open_fresh(dir.path()).await, Err(DevError::NotOurs { .. })));
    assert!(file.exists());
}

/// A child process that is killed when the test ends.
struct Reaped(std::process::Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the process runs. A zombie does not.
fn is_alive(pid: u32) -> bool {
    if !Path::new("/proc/self/stat").exists() {
        return nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), None).is_ok();
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn set(url: &str, key: &str, value: i64) {
    redis::cmd("SET").arg(key).arg(value).exec_async(&mut connect(url).await).await.unwrap();
}

async fn get(url: &str, key: &str) -> Option<i64> {
    redis::cmd("GET").arg(key).query_async(&mut connect(url).await).await.unwrap()
}

/// Runs a statement. Returns the number in the first row of a `select`, otherwise the number of changed rows.
async fn sql(url: &str, statement: &'static str) -> Result<i64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let rows = if statement.starts_with("select") {
        sqlx::query_scalar(statement).fetch_one(&mut connection).await?
    } else {
        sqlx::query(statement).execute(&mut connection).await?.rows_affected().cast_signed()
    };
    connection.close().await?;
    Ok(rows)
}
