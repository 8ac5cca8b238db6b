//! The OpenAPI contract, generated from the handlers. `docs/openapi.json` is its committed copy.

use axum::{http::header, response::IntoResponse};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, PathItem, Ref, RefOr, Required, Response, ResponseBuilder, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{
    billing::subscription,
    http::{
        answers::{problem::Problem, quota::QuotaExceeded},
        routes::{
            admin::{
                changes, drift, heavy_users, holds, level as user_level, messages, own_quota, price_replay, refund,
                rollout, status, usage, users,
            },
            authorize, consume, grants, health, level, quota, quota_stream, reservations, reset, transfers,
        },
    },
    openai::{OpenAiError, proxy},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quota gate",
        description = "Decides, for every message of a chat product, whether its user may still send it."
    ),
    paths(
        quota::quota,
        quota_stream::stream_quota,
        consume::consume,
        authorize::authorize,
        authorize::authorize_by_get,
        reservations::reserve,
        reservations::commit,
        reservations::release,
        reservations::extend,
        grants::give,
        grants::list,
        grants::void,
        transfers::transfer,
        transfers::show,
        level::change,
        subscription::receive,
        reset::run,
        reset::health,
        proxy::chat_completions,
        proxy::responses,
        proxy::models,
        users::list,
        users::show,
        messages::list,
        refund::refund,
        user_level::change,
        own_quota::quota,
        own_quota::block,
        holds::release,
        changes::list,
        usage::usage,
        heavy_users::top,
        heavy_users::forecast,
        drift::compare,
        price_replay::replay,
        status::status,
        rollout::show,
        rollout::change,
        health::live,
        health::ready,
        health::metrics,
    ),
    // utoipa does not collect the schemas of types that implement `IntoResponses`.
    components(schemas(Problem, QuotaExceeded<'_>, OpenAiError<'_>)),
    modifiers(&Credentials, &AnsweredHeaders, &OtherMeters),
)]
struct Contract;

/// Adds the security schemes.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let bearer = |description: &str| {
            SecurityScheme::Http(
                HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build(),
            )
        };
        components
            .add_security_scheme("user", bearer("A user's JWT, by HS256 or a JWKS key, with exp, iss, aud and sub"));
        components.add_security_scheme("service", bearer("The token of a chat service"));
        components.add_security_scheme("admin", bearer("The token of an administrator"));
        components
            .add_security_scheme("grant", bearer("The token of a service that gives, voids and transfers grants"));
        components.add_security_scheme("cron", bearer("The token of the reset job"));
    }
}

/// Adds the headers that many answers have.
struct AnsweredHeaders;

/// Operations that also answer the quota in headers.
const METERED: [&str; 6] = ["getQuota", "consume", "reserve", "commit", "extend", "authorize"];

impl Modify for AnsweredHeaders {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for item in openapi.paths.paths.values_mut() {
            let PathItem { get, put, post, patch, .. } = item;
            for operation in [get, put, post, patch].into_iter().flatten() {
                let id = operation.operation_id.as_deref().unwrap_or_default();
                let is_metered = METERED.contains(&id);
                for (status, response) in &mut operation.responses.responses {
                    let RefOr::T(response) = response else { continue };
                    describe(response, "X-Request-Id", "Id of the request: taken from the request, or generated");
                    if is_metered && ["200", "201", "429"].contains(&status.as_str()) {
                        describe(
                            response,
                            "RateLimit-Policy",
                            "`\"monthly\";q=300;w=2592000`: quota, and length of the period in seconds",
                        );
                        describe(
                            response,
                            "RateLimit",
                            "`\"monthly\";r=41;t=604800`: remaining AP, and seconds until the reset",
                        );
                    }
                    if status == "503" {
                        describe(response, "Retry-After", "Seconds to wait before a retry");
                    }
                }
            }
        }
    }
}

/// Adds the routes of meters beside the chat: those of the chat that every meter has.
struct OtherMeters;

/// Operations that every meter has.
const OF_EVERY_METER: [&str; 12] = [
    "getQuota",
    "streamQuota",
    "consume",
    "reserve",
    "commit",
    "release",
    "extend",
    "giveGrant",
    "listGrants",
    "voidGrant",
    "transfer",
    "getTransfer",
];

impl Modify for OtherMeters {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let paths = &mut openapi.paths.paths;
        let of_chat: Vec<(String, PathItem)> = paths
            .iter()
            .filter_map(|(path, item)| {
                Some((format!("/api/{{meter}}/quota{}", path.strip_prefix("/api/chat/quota")?), item.clone()))
            })
            .collect();
        for (path, mut item) in of_chat {
            let PathItem { get, put, post, patch, .. } = &mut item;
            let mut is_of_every_meter = false;
            for operation in [get, put, post, patch].into_iter().flatten() {
                let id = operation.operation_id.as_deref().unwrap_or_default();
                is_of_every_meter |= OF_EVERY_METER.contains(&id);
                operation.operation_id = Some(format!("{id}OfMeter"));
                operation.parameters.get_or_insert_default().insert(0, meter_parameter());
                operation.responses.responses.entry("404".to_owned()).or_insert_with(no_such_meter);
            }
            if is_of_every_meter {
                paths.insert(path, item);
            }
        }
    }
}

fn no_such_meter() -> RefOr<Response> {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description("NOT_FOUND: no such meter");
    RefOr::T(response.content("application/problem+json", problem).build())
}

fn meter_parameter() -> Parameter {
    let names = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^(?!chat$)[a-z][a-z0-9-]{0,31}$"));
    ParameterBuilder::new()
        .name("meter")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("A meter of `[meters]`. AP are those of the meter"))
        .schema(Some(names.examples(["image"]).build()))
        .build()
}

fn describe(response: &mut Response, name: &str, what: &str) {
    let header = HeaderBuilder::new().description(Some(what)).build();
    response.headers.insert(name.to_owned(), header);
}

/// Returns the contract, as in `docs/openapi.json`.
///
/// # Panics
/// Never: the contract is JSON.
#[must_use]
pub fn openapi_json() -> String {
    let mut text = Contract::openapi().to_pretty_json().expect("the contract is JSON");
    text.push('\n');
    text
}

pub(crate) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json())
}
