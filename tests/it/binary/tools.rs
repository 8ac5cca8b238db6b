//! Commands beside the gate: they need only what they use, work for a running `dev`, and survive a reader that goes.

use std::{
    fs,
    io::Read,
    process::{Command, Output, Stdio},
};

use super::process::{BINARY, Dev, Serve};
use crate::support::{World, scratch};

/// A command with no settings but these.
fn bare(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(std::env::temp_dir()).envs(settings.iter().copied());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn commands_need_only_the_secrets_that_they_use() {
    let world = World::new().await;
    drop(Serve::on(&world.database, &world.redis.url(), &[]).await);
    let users = scratch("users.csv");
    fs::write(&users, "user,level,used\nann,free,3\n").unwrap();
    let redis_url = world.redis.url();
    let mut settings = vec![
        ("DATABASE_URL", world.database.as_str()),
        // A secret that is only on the gate's machines.
        ("QUOTA_GATE__AUTH__JWT_SECRET", "file:/nowhere/jwt"),
        ("QUOTA_GATE__UPSTREAM__KEY", "file:/nowhere/key"),
    ];
    for arguments in [&["migrate"][..], &["retention", "--dry-run"], &["dead-letters", "list"]] {
        let output = bare(arguments, &settings).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
    settings.push(("REDIS_URL", &redis_url));
    for arguments in
        [&["import", users.to_str().unwrap()][..], &["reset"], &["levels", "apply"], &["inspect", "ann"], &["verify"]]
    {
        let output = bare(arguments, &settings).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
    // The gate itself needs it, and says which one, once.
    let refused = Serve::refused(&world.database, &redis_url, &[("QUOTA_GATE__AUTH__JWT_SECRET", "file:/nowhere/jwt")]);
    assert_eq!(refused.matches("/nowhere/jwt").count(), 1, "{refused}");
    assert!(refused.contains("auth.jwt_secret"), "{refused}");
}

#[tokio::test]
async fn commands_find_a_running_dev() {
    let dev = Dev::start().await;
    let dir = dev.dir.to_str().unwrap();
    for arguments in [
        &["inspect", "free-user"][..],
        &["verify"],
        &["reset"],
        &["levels", "apply"],
        &["dead-letters", "list"],
        &["doctor"],
        &["health"],
        &["token", "free-user"],
    ] {
        let output = bare(arguments, &[]).args(["--data-dir", dir]).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
    // Without the argument: the one in the working directory, if nothing else is configured.
    let parent = scratch("project");
    fs::create_dir_all(&parent).unwrap();
    std::os::unix::fs::symlink(&dev.dir, parent.join(".quota-gate")).unwrap();
    let output = bare(&["inspect", "free-user"], &[]).current_dir(&parent).output().unwrap();
    assert!(
        output.status.success() && text(&output).contains("using those of the `quota-gate dev`"),
        "{}",
        text(&output)
    );
    let missing = bare(&["verify"], &[]).args(["--data-dir", "/nowhere"]).output().unwrap();
    assert!(text(&missing).contains("is `quota-gate dev` running?"), "{}", text(&missing));
}

#[tokio::test]
async fn a_reader_that_goes_neither_stops_a_command_nor_makes_it_fail() {
    let dev = Dev::start().await;
    let dir = dev.dir.to_str().unwrap();
    for arguments in [&["levels", "apply"][..], &["inspect", "free-user"], &["completions", "bash"], &["doctor"]] {
        let mut command = bare(arguments, &[]);
        // `levels apply` prints while it works, to a pipe that has no reader.
        command.args(["--data-dir", dir]).env("QUOTA_GATE__LEVELS__FREE", "150").env("QUOTA_GATE__LEVELS__PRO", "5000");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(child.wait().unwrap().success() && errors.is_empty(), "{arguments:?}: {errors}");
    }
    let inspected = bare(&["inspect", "pro-user"], &[]).args(["--data-dir", dir]).output().unwrap();
    assert!(text(&inspected).contains("5000 AP"), "every level is applied: {}", text(&inspected));
    let full = bare(&["inspect", "pro-user"], &[])
        .args(["--data-dir", dir])
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert!(!full.status.success() && text(&full).contains("the output cannot be written"), "{}", text(&full));
}

#[tokio::test]
async fn an_error_is_said_once() {
    let world = World::new().await;
    let away = ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere");
    let redis = world.redis.url();
    for arguments in [&["verify"][..], &["reset"], &["migrate"]] {
        let output = bare(arguments, &[away, ("REDIS_URL", &redis)]).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success() && said.lines().count() == 1, "{arguments:?}: {said}");
        for part in ["Postgres is not available", "Connection refused"] {
            assert!(said.matches(part).count() <= 1, "{arguments:?}: {said}");
        }
    }
}
