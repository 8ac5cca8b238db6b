//! Extracts bodies, path parameters and headers as domain values. Invalid input becomes a problem that names the field.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{header, request::Parts},
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::http::answers::problem::{Code, Problem};
use quota_gate::domain::{idempotency::IdempotencyKey, user_id::UserId};

pub(crate) struct Body<T>(pub(crate) T);

pub(crate) struct ReservationId(pub(crate) String);

pub(crate) struct GrantId(pub(crate) Uuid);

pub(crate) struct TransferId(pub(crate) Uuid);

pub(crate) struct Params<T>(pub(crate) T);

pub(crate) struct PathUser(pub(crate) UserId);

pub(crate) struct PathUserAndHold(pub(crate) UserId, pub(crate) Uuid);

pub(crate) struct PathUserAndCharge(pub(crate) UserId, pub(crate) Uuid);

/// The header `Idempotency-Key`, plain or as a quoted structured-field string.
pub(crate) struct IdempotencyHeader(pub(crate) Option<IdempotencyKey>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let encoding = request.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let detail = "bodies of this path must not be compressed: send no Content-Encoding";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(problem_of(&rejection)),
        }
    }
}

fn problem_of(rejection: &JsonRejection) -> Problem {
    let code = match rejection.status().as_u16() {
        413 => Code::PayloadTooLarge,
        415 => Code::UnsupportedMediaType,
        _ => Code::InvalidRequest,
    };
    // axum's text names the field and the position; of the body it contains only the kind of the invalid value.
    Problem::new(code, rejection.body_text())
}

impl<S: Send + Sync> FromRequestParts<S> for ReservationId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(Code::NotFound, "no such reservation"))?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for GrantId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = id.and_then(|Path(id)| id.parse().ok());
        id.map(Self).ok_or_else(|| Problem::new(Code::NotFound, "no such grant"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TransferId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = id.and_then(|Path(id)| id.parse().ok());
        id.map(Self).ok_or_else(|| Problem::new(Code::NotFound, "no such transfer"))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(Problem::new(Code::InvalidRequest, rejection.body_text())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(user) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| no_user())?;
        Ok(Self(UserId::parse(&user)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathUserAndHold {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((user, hold)) = path.map_err(|_| no_user())?;
        let hold = hold.parse().map_err(|_| Problem::new(Code::NotFound, "no such hold"))?;
        Ok(Self(UserId::parse(&user)?, hold))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathUserAndCharge {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((user, charge)) = path.map_err(|_| no_user())?;
        let charge = charge.parse().map_err(|_| Problem::new(Code::NotFound, "no such message"))?;
        Ok(Self(UserId::parse(&user)?, charge))
    }
}

fn no_user() -> Problem {
    Problem::new(Code::NotFound, "no such user")
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyHeader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.next().is_some() {
            return Err(Problem::new(Code::InvalidRequest, "Idempotency-Key is given more than once"));
        }
        let text = value.to_str().unwrap_or("\n");
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        Ok(Self(Some(IdempotencyKey::parse(text)?)))
    }
}
