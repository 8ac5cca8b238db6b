//! Envoy in front of a chat, configured as in docs/gateways.md; and its protocol, with our own client.

use std::process::Command;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::{
    clients::prepared,
    gateway::{Behind, Gateway, documented, folder, jwt},
    process::{JWT_SECRET, SERVICE_TOKEN},
};

const LISTEN: (&str, &str) = ("QUOTA_GATE__ENVOY__LISTEN", "127.0.0.1:0");

fn port_for_envoy(behind: &Behind) -> u16 {
    let log = behind.gate.log();
    let line = log.lines().find(|line| line.contains("listen_for_envoy")).expect("the log has the address");
    let line: Value = serde_json::from_str(line).unwrap();
    line["listen_for_envoy"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_documented_envoy_asks_the_gate() {
    let behind = Behind::new(&[LISTEN]).await;
    let config = documented("yaml", "envoy.filters.http.ratelimit")
        .replace("port_value: 8081", &format!("port_value: {}", port_for_envoy(&behind)))
        .replace("port_value: 3000", &format!("port_value: {}", behind.chat_port))
        .replace("port_value: 8000", &format!("port_value: {}", behind.port))
        .replace("ISSUER", "test")
        .replace("SECRET", &BASE64_URL_SAFE_NO_PAD.encode(JWT_SECRET))
        .replace("TOKEN", SERVICE_TOKEN);
    let dir = folder("envoy", "envoy.yaml", &config);
    let envoy = prepared().await.join("python/bin/envoy");
    let _envoy = Gateway::start(Command::new(envoy).arg("-c").arg(dir.join("envoy.yaml")).args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
    ]));
    behind.open().await;
    let alice = jwt("alice");
    for used in [40, 80] {
        let answer = behind.ask(Some(&alice)).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-quota-remaining"]),
            (200, &(100 - used).to_string().parse().unwrap())
        );
        assert_eq!(behind.quota("alice").await, (used, 0));
    }
    let denied = behind.ask(Some(&alice)).await;
    assert_eq!(denied.status().as_u16(), 429);
    let denial = denied.json::<Value>().await.unwrap();
    let until = &denial["remedies"][0]["until"];
    let remedies = json!([
        {"kind": "wait", "until": until},
        {"kind": "level", "membershipLevel": "basic", "monthlyQuota": 300},
    ]);
    assert_eq!(
        denial,
        json!({
            "code": "QUOTA_EXCEEDED", "required": 40, "remaining": 20, "shortfall": 20, "remedies": remedies,
        })
    );
    assert_eq!(behind.ask(None).await.status().as_u16(), 401);
    behind.gate.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(behind.ask(Some(&jwt("bob"))).await.status().as_u16(), 503);
}

/// The messages of the protocol, written a second time from its proto files.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(message, repeated, tag = "2")]
    descriptors: Vec<Descriptor>,
    #[prost(uint32, tag = "3")]
    hits_addend: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    overall_code: i32,
    #[prost(message, repeated, tag = "2")]
    statuses: Vec<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, optional, tag = "2")]
    current_limit: Option<Limit>,
    #[prost(uint32, tag = "3")]
    limit_remaining: u32,
    #[prost(message, optional, tag = "4")]
    duration_until_reset: Option<Duration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Limit {
    #[prost(uint32, tag = "1")]
    requests_per_unit: u32,
    #[prost(int32, tag = "2")]
    unit: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

const OK: i32 = 1;
const OVER_LIMIT: i32 = 2;
const MONTH: i32 = 5;

#[tokio::test]
async fn the_protocol_charges_denies_and_refuses_invalid_requests() {
    let behind = Behind::new(&[LISTEN, ("QUOTA_GATE__MODELS", "{default=1, dear=30}")]).await;
    let address = format!("http://127.0.0.1:{}", port_for_envoy(&behind));
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let ask = async |descriptors: &[&[(&str, &str)]], hits_addend: u32, token: &str| {
        let entry = |(key, value): &(&str, &str)| Entry { key: (*key).into(), value: (*value).into() };
        let descriptor = |entries: &&[(&str, &str)]| Descriptor { entries: entries.iter().map(entry).collect() };
        let descriptors = descriptors.iter().map(descriptor).collect();
        let mut request = Request::new(Ask { domain: "chat".into(), descriptors, hits_addend });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let mut client = Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
        client.unary(request, path, ProstCodec::<Ask, Answer>::default()).await.map(tonic::Response::into_inner)
    };
    let dear: &[(&str, &str)] = &[("user", "bob"), ("model", "dear")];
    let answer = ask(&[&[("path", "/")], dear], 2, SERVICE_TOKEN).await.unwrap();
    assert_eq!((answer.overall_code, answer.statuses.len(), answer.statuses[0].code), (OK, 2, OK));
    let status = &answer.statuses[1];
    assert_eq!((status.code, status.limit_remaining), (OK, 40));
    assert_eq!(status.current_limit, Some(Limit { requests_per_unit: 100, unit: MONTH }));
    assert!(status.duration_until_reset.as_ref().unwrap().seconds >= 0);
    let answer = ask(&[dear], 2, SERVICE_TOKEN).await.unwrap();
    assert_eq!(
        (answer.overall_code, answer.statuses[0].code, answer.statuses[0].limit_remaining),
        (OVER_LIMIT, OVER_LIMIT, 40)
    );
    assert_eq!(behind.quota("bob").await, (60, 0));
    // The gate does not limit requests without a user.
    assert_eq!(ask(&[&[("path", "/")]], 1, SERVICE_TOKEN).await.unwrap().overall_code, OK);
    for (descriptors, token, code) in [
        (vec![dear, dear], SERVICE_TOKEN, Code::InvalidArgument),
        (vec![[("user", "no user")].as_slice()], SERVICE_TOKEN, Code::InvalidArgument),
        (vec![dear], "made up", Code::Unauthenticated),
    ] {
        assert_eq!(ask(&descriptors, 1, token).await.unwrap_err().code(), code, "{descriptors:?}");
    }
    // A blocked user is over the limit, not an error, after which Envoy might let the request pass.
    let block = "update chat_quotas set blocked = true, level_version = level_version + 1 where user_uuid = 'bob'";
    crate::support::execute(&behind.world.database, block).await;
    crate::support::eventually("the block is in Redis", async || {
        let answer = ask(&[dear], 2, SERVICE_TOKEN).await.unwrap();
        answer.overall_code == OVER_LIMIT && answer.statuses[0].current_limit.is_none()
    })
    .await;
    let jwt = jwt("bob");
    assert_eq!(ask(&[dear], 1, &jwt).await.unwrap_err().code(), Code::PermissionDenied, "a user's JWT is not allowed");
    assert_eq!(behind.quota("bob").await, (60, 0));
}
