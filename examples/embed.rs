//! Embeds the gate in an application, without HTTP. Each pair of lines on standard input is a user's message and the
//! model's answer: the message is held, and charged when the answer has been read.
//!
//! `DATABASE_URL=… REDIS_URL=… RESERVATION_SECRET=… cargo run --example embed`
//! (`quota-gate dev` writes the addresses of its stores to `.quota-gate/dev.json`; `openssl rand -hex 32` makes a
//! secret.)

#![expect(clippy::print_stdout, reason = "an example prints its results")]
#![expect(clippy::disallowed_methods, reason = "an example has no configuration but its environment")]

use std::{env, time::Duration};

use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Decision, Settled},
        hold::Ttl,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    gate::{Commit, Gate, Reserve},
    runtime::{Runtime, RuntimeOptions},
};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secret = env::var("RESERVATION_SECRET")?;
    let options = RuntimeOptions::new(&env::var("DATABASE_URL")?, &env::var("REDIS_URL")?, secret.as_bytes())?;
    // All jobs run from here on: flusher, inbox worker, resets, level sync and rollout sync.
    let runtime = Runtime::start(options).await?;
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let outcome = tokio::select! {
        outcome = chat(runtime.gate(), &mut lines) => outcome,
        failed = runtime.failed() => Err(failed.into()),
    };
    runtime.shutdown(Duration::from_secs(20)).await;
    outcome
}

async fn chat(gate: &Gate, lines: &mut Lines<BufReader<Stdin>>) -> anyhow::Result<()> {
    while lines.next_line().await?.is_some() {
        let request = Reserve {
            user: UserId::parse("alice")?,
            session: SessionId::parse("chat-1")?,
            ap: Ap::cost(3)?,
            ttl: Ttl::DEFAULT,
            idempotency_key: None,
        };
        let reserved = match gate.reserve(request).await? {
            Decision::Allowed(reserved) => reserved,
            Decision::Denied(denied) => {
                println!("quota exceeded: {} AP short", denied.shortfall());
                continue;
            }
            Decision::Passed(_) => {
                println!("passed: the rollout does not include this user yet");
                continue;
            }
        };
        println!("held: {} AP remain", reserved.quota.remaining());
        let id = gate.reservation_id(&reserved.reservation);
        let Some(answer) = lines.next_line().await? else {
            gate.release(&id).await?;
            return Ok(());
        };
        let tokens = Tokens::new(answer.split_whitespace().count().try_into()?)?;
        match gate.commit(&id, Commit { ap: Some(Ap::cost(2)?), tokens, model: None }).await? {
            Settled::Now(done) => println!("charged: {} AP, {} remain", done.charged, done.quota.remaining()),
            Settled::Later => println!("accepted: charged when Redis is available again"),
        }
    }
    Ok(())
}
