//! Embeds the gate in an application, without HTTP: reserve, generate, commit.
//!
//! `DATABASE_URL=… REDIS_URL=… QUOTA_GATE__AUTH__RESERVATION_SECRET=… cargo run --example embed`
//! (`quota-gate dev` writes these values to `.quota-gate/dev.json`.)

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::time::Duration;

use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Decision, Settled},
        hold::Ttl,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    gate::{Commit, Reserve},
};
use quota_gate_server::{app::App, config::Config};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = App::build(Config::load(None)?).await?;
    // At least one process must flush usage to Postgres; here it is this one.
    let stop = CancellationToken::new();
    let flushing = tokio::spawn(app.flusher().run(Duration::from_millis(200), stop.clone()));

    let request = Reserve {
        user: UserId::parse("free-user")?,
        session: SessionId::parse("chat-1")?,
        ap: Ap::cost(3)?,
        ttl: Ttl::DEFAULT,
        idempotency_key: None,
    };
    match app.gate.reserve(request).await? {
        Decision::Denied(denied) => println!("quota exceeded: {} AP short", denied.shortfall()),
        Decision::Passed(_) => println!("passed: the rollout does not include this user yet"),
        Decision::Allowed(reserved) => {
            let id = app.gate.reservation_id(&reserved.reservation);
            let tokens = Tokens::new(512)?; // … generate the message here …
            match app.gate.commit(&id, Commit { ap: Some(Ap::cost(2)?), tokens, model: None }).await? {
                Settled::Now(done) => println!("{} AP charged, {} remain", done.charged, done.quota.remaining()),
                Settled::Later => println!("accepted: charged when Redis is available again"),
            }
        }
    }

    stop.cancel();
    flushing.await?;
    Ok(())
}
