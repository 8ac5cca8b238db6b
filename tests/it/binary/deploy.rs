//! The files of `deploy/`: linters check them, and a test runs the compose setup without containers.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::json;

use super::{
    clients::prepared,
    gateway::Gateway,
    process::{BINARY, answer},
};
use crate::support::{eventually, postgres, scratch};

fn deploy(file: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("deploy").join(file)
}

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {said}");
    said
}

#[tokio::test]
async fn linters_accept_image_manifests_and_unit() {
    let bin = prepared().await.join("python/bin");
    succeeds(Command::new(bin.join("hadolint")).arg(deploy("container/Dockerfile")));
    let manifests: Vec<PathBuf> =
        fs::read_dir(deploy("kubernetes")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(manifests.len() >= 5, "{manifests:?}");
    succeeds(Command::new(bin.join("kubernetes-validate")).arg("--strict").args(manifests));
    if Path::new("/usr/bin/systemd-analyze").exists() {
        let unit = fs::read_to_string(deploy("systemd/quota-gate.service")).unwrap();
        let here = unit.replace("/usr/local/bin/quota-gate", BINARY).replace("Documentation=man:quota-gate(1)\n", "");
        let dir = scratch("unit");
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("quota-gate.service");
        fs::write(&file, here).unwrap();
        succeeds(Command::new("systemd-analyze").arg("verify").arg(&file));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Copies `deploy/compose` to a new folder and creates its secrets with `secrets.sh`.
fn compose() -> PathBuf {
    let dir = scratch("compose");
    for (from, to) in [
        ("compose/secrets.sh", "compose/secrets.sh"),
        ("compose/redis.conf", "compose/redis.conf"),
        ("compose/nginx.conf", "compose/nginx.conf"),
        ("redis/users.acl", "redis/users.acl"),
    ] {
        fs::create_dir_all(dir.join(to).parent().unwrap()).unwrap();
        fs::copy(deploy(from), dir.join(to)).unwrap();
    }
    let script = dir.join("compose/secrets.sh");
    succeeds(Command::new("sh").arg(&script));
    let before = fs::read(dir.join("compose/secrets/gate.env")).unwrap();
    succeeds(Command::new("sh").arg(&script));
    assert_eq!(fs::read(dir.join("compose/secrets/gate.env")).unwrap(), before, "secrets are created once");
    dir.join("compose")
}

fn replaced(file: &Path, replacements: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(file).unwrap();
    for (from, to) in replacements {
        assert!(text.contains(from), "{}: {from}", file.display());
        text = text.replace(from, to);
    }
    text
}

/// Parses lines of `NAME=value`.
fn environment(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

#[tokio::test]
async fn the_compose_files_run_two_gates_behind_nginx() {
    let dir = compose();
    let data = dir.join("data");
    fs::create_dir_all(&data).unwrap();
    let redis_port = free_port();
    let conf = replaced(
        &dir.join("redis.conf"),
        &[
            ("/etc/redis/users.acl", dir.join("secrets/users.acl").to_str().unwrap()),
            ("dir /data", &format!("dir {}\nport {redis_port}\nbind 127.0.0.1", data.display())),
        ],
    );
    fs::write(dir.join("redis.conf"), conf).unwrap();
    let _redis = Gateway::start(Command::new("redis-server").arg(dir.join("redis.conf")));

    // The owner creates the tables, then the gate's role.
    let server = postgres().await;
    let owner = server.url("postgres");
    succeeds(Command::new(BINARY).arg("migrate").env("DATABASE_URL", &owner));
    let password = fs::read_to_string(dir.join("secrets/gate-password")).unwrap();
    let roles = dir.join("roles.sql");
    let text = format!("\\set password '{password}'\n") + &fs::read_to_string(deploy("postgres/roles.sql")).unwrap();
    fs::write(&roles, text).unwrap();
    succeeds(Command::new("psql").args(["-v", "ON_ERROR_STOP=1", "-q", "-f"]).arg(&roles).arg(&owner));

    let postgres_at = owner.rsplit_once('@').unwrap().1;
    let settings = replaced(
        &dir.join("secrets/gate.env"),
        &[("@postgres/quota", &format!("@{postgres_at}")), ("@redis:6379", &format!("@127.0.0.1:{redis_port}"))],
    );
    let ports = [free_port(), free_port()];
    let text = fs::read_to_string(deploy("compose/compose.yaml")).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("QUOTA_GATE__SERVER__TRUSTED_PROXIES: '"));
    // Here, nginx has no address of Docker's.
    let proxies = line.unwrap().trim_end_matches('\'').replace('[', "[\"127.0.0.1\", ");
    let gate = |port: u16| {
        let mut command = Command::new(BINARY);
        command.envs(environment(&settings)).env("QUOTA_GATE__SERVER__LISTEN", format!("127.0.0.1:{port}"));
        command.env("QUOTA_GATE__SERVER__TRUSTED_PROXIES", &proxies).env("QUOTA_GATE__TELEMETRY__ACCESS_LOG", "true");
        command
    };
    // The test's Postgres runs with fsync off: the only problem.
    let only_fsync_is_wrong = async || {
        let said = gate(ports[0]).arg("doctor").output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let wrong: Vec<&str> = said.lines().filter(|line| line.starts_with("WRONG")).collect();
        matches!(wrong[..], [one] if one.contains("fsync off"))
    };
    eventually("doctor finds no other problem", only_fsync_is_wrong).await;
    let log = |port: u16| dir.join(format!("gate-{port}.log"));
    let gates = ports.map(|port| {
        let log = fs::File::create(log(port)).unwrap();
        Gateway::start_logging(gate(port).arg("serve"), log)
    });
    for port in ports {
        let is_ready = async || gate(port).arg("health").output().unwrap().status.success();
        eventually("the health check passes", is_ready).await;
    }

    let port = free_port();
    let [one, two] = ports.map(|port| format!("127.0.0.1:{port}"));
    let listen = format!("listen 127.0.0.1:{port};");
    let operators = free_port();
    let for_operators = format!("listen 127.0.0.1:{operators};");
    let nginx = replaced(
        &dir.join("nginx.conf"),
        &[("gate-1:8080", &one), ("gate-2:8080", &two), ("listen 8080;", &listen), ("listen 8081;", &for_operators)],
    );
    let nginx_conf = nginx.clone();
    // Workers of root's nginx have another account, which cannot enter the test's folder.
    let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
    let own = format!("{user}daemon off;\npid {0}/nginx.pid;\nerror_log {0}/error.log;\n", dir.display());
    fs::write(
        dir.join("nginx.conf"),
        own + &nginx.replace(
            "http {",
            &format!("http {{\n    access_log off;\n    client_body_temp_path {}/body;", dir.display()),
        ),
    )
    .unwrap();
    let nginx = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
    let _nginx = Gateway::start(Command::new(nginx).arg("-c").arg(dir.join("nginx.conf")).arg("-p").arg(&dir));

    let token = fs::read_to_string(dir.join("secrets/service-token")).unwrap();
    let consume = async || {
        let body = json!({"userUuid": "ann", "sessionId": "s"});
        let request = reqwest::Client::new().post(format!("http://127.0.0.1:{port}/api/chat/quota/consume"));
        let sent = request.bearer_auth(&token).json(&body).send().await;
        match sent {
            Ok(answer) => answer.status().as_u16(),
            Err(_) => 0,
        }
    };
    eventually("a message is charged through nginx", async || consume().await == 200).await;
    clients_see_only_what_is_for_them(port, operators, &token, &nginx_conf).await;
    let logged = async || ports.iter().any(|port| fs::read_to_string(log(*port)).unwrap().contains("203.0.113.9"));
    eventually("a gate logs the client's address", logged).await;
    // One gate stops; the other one serves.
    let [first, second] = gates;
    drop(first);
    for _ in 0..6 {
        assert_eq!(consume().await, 200);
    }
    let admin = fs::read_to_string(dir.join("secrets/admin-token")).unwrap();
    let status = reqwest::Client::new().get(format!("http://{two}/api/admin/users/ann")).bearer_auth(&admin);
    assert_eq!(answer(status).await.1["quota"]["monthlyUsed"], 7);
    drop(second);
}

/// Neither metrics nor administration; and bodies may be as large as the gate allows.
async fn clients_see_only_what_is_for_them(port: u16, operators: u16, token: &str, nginx_conf: &str) {
    let status = async |port: u16, path: &str| {
        reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.unwrap().status().as_u16()
    };
    for path in ["/metrics", "/admin", "/admin/", "/api/admin/status", "/api/admin"] {
        assert_eq!(status(port, path).await, 404, "{path}");
    }
    for (path, expected) in [("/metrics", 200), ("/admin", 200), ("/api/admin/status", 401)] {
        assert_eq!(status(operators, path).await, expected, "{path}");
    }
    let large = reqwest::Client::new().post(format!("http://127.0.0.1:{port}/api/chat/quota/consume"));
    let (refused, problem) = answer(large.bearer_auth(token).body(vec![b' '; 2 << 20])).await;
    assert_eq!((refused.as_u16(), &problem["code"]), (413, &json!("PAYLOAD_TOO_LARGE")), "the gate decides: {problem}");
    let defaults = include_str!("../../../config/default.toml");
    assert!(
        defaults.contains(&format!("body_bytes_max = {}", 20 << 20))
            && nginx_conf.contains("client_max_body_size 20m;")
    );
    let request = reqwest::Client::new().get(format!("http://127.0.0.1:{port}/api/chat/quota"));
    request.header("X-Forwarded-For", "203.0.113.9").send().await.unwrap();
}

#[tokio::test]
async fn writes_of_a_function_survive_a_restart_with_the_shipped_users() {
    const TWO_WRITES: &str = "#!lua name=two_writes\n\
        redis.register_function('two_writes', function(keys) \
        redis.call('SET', keys[1], 'a') redis.call('SET', keys[2], 'b') end)";
    let dir = scratch("users");
    fs::create_dir_all(&dir).unwrap();
    let users = replaced(&deploy("redis/users.acl"), &[(">PASSWORD", ">secret")]);
    fs::write(dir.join("users.acl"), users).unwrap();
    let port = free_port();
    let conf = format!(
        "bind 127.0.0.1\nport {port}\ndir {0}\naclfile {0}/users.acl\nappendonly yes\nappendfsync always\n",
        dir.display()
    );
    fs::write(dir.join("redis.conf"), conf).unwrap();
    let start = || Gateway::start(Command::new("redis-server").arg(dir.join("redis.conf")));
    let client = redis::Client::open(format!("redis://quota_gate:secret@127.0.0.1:{port}")).unwrap();
    let keys = ["qg:{00}:a", "qg:{00}:b"];
    let server = start();
    let is_up = async || client.get_multiplexed_async_connection().await.is_ok();
    eventually("Redis answers", is_up).await;
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FUNCTION").arg("LOAD").arg(TWO_WRITES).exec_async(&mut connection).await.unwrap();
    redis::cmd("FCALL").arg("two_writes").arg(2).arg(&keys).exec_async(&mut connection).await.unwrap();
    drop(server);

    let _server = start();
    let values = async || -> Option<Vec<Option<String>>> {
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("MGET").arg(&keys).query_async(&mut connection).await.ok()
    };
    eventually("Redis has loaded its file", async || values().await.is_some()).await;
    assert_eq!(values().await.unwrap(), [Some("a".to_owned()), Some("b".to_owned())]);
    // The default user still cannot log in.
    let anonymous = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let refused = anonymous.get_multiplexed_async_connection().await;
    let mut refused = refused.expect("a connection without a user opens, but has no permissions");
    assert_eq!(redis::cmd("PING").exec_async(&mut refused).await.unwrap_err().code(), Some("NOAUTH"));
}
