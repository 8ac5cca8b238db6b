//! Starts a gate and puts it before a service.

use std::{error::Error, time::Duration};

use axum::{
    Router,
    http::request::Parts,
    response::{IntoResponse, Response},
    routing::post,
};
use quota_gate::{
    domain::{
        ap::Ap,
        user_id::{SessionId, UserId},
    },
    runtime::{Runtime, RuntimeOptions},
};
use quota_gate_axum::{Ask, QuotaLayer, Refusal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = RuntimeOptions::new("postgres://localhost", "redis://localhost", &[7; 32])?;
    let runtime = Runtime::start(options).await?;
    let ask = |_: &Parts| -> Result<Ask, Response> {
        let user = UserId::parse("alice").map_err(|error| error.to_string().into_response())?;
        Ok(Ask { user, session: SessionId::unnamed(), ap: Ap::ONE })
    };
    let refuse = |refusal: Refusal| format!("{refusal:?}").into_response();
    let layer = QuotaLayer::new(runtime.gate().clone(), ask, refuse);
    let _service: Router = Router::new().route("/", post(async || "hello")).layer(layer);
    runtime.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
