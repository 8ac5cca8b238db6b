//! Which credentials are accepted, and which user they identify.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
};

use axum::http::{HeaderMap, header};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64},
};
use futures_util::poll;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::yield_now};

use crate::http::auth::{tokens::tests::hash, *};

const SECRET: &str = "a secret of at least thirty-two bytes";
/// 2100-01-01, so that the tests need no clock.
const LATER: u64 = 4_102_444_800;
/// An Ed25519 key pair used only in these tests: `openssl genpkey -algorithm ed25519`.
const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEII2Alz9MtA+Ehrz5GmcLinCDcku4JHnGn2AEn37wLS9t";
const PUBLIC_X: &str = "i9UYHxMbFzNTI0kNIoVlrbc0DZlaRD-Bm0wQvkd2kUk";

const fn options<'a>(secret: &'a str, jwks: &'a str) -> JwtOptions<'a> {
    JwtOptions { secret, jwks, issuer: "chat.example", audience: "chat", leeway_seconds: 30 }
}

async fn auth_with(jwt: &JwtOptions<'_>) -> Result<Auth, InvalidInput> {
    let token = |id: &str, scope| TokenOptions { id: id.into(), sha256: vec![hash(id)], scopes: vec![scope] };
    let tokens = [token("service", Scope::Consume), token("reader", Scope::Read), token("admin", Scope::Admin)];
    Auth::new(jwt, &tokens, Arc::new(RateLimits::unlimited())).await
}

async fn auth() -> Auth {
    auth_with(&options(SECRET, "")).await.unwrap()
}

fn headers(credential: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Bearer {credential}").parse().unwrap());
    headers
}

async fn user_by(auth: &Auth, credential: &str) -> Option<String> {
    match auth.identify(&headers(credential)).await {
        Ok(Identity::User(user)) => Some(user.to_string()),
        _ => None,
    }
}

fn claims() -> Value {
    json!({"sub": "alice", "iss": "chat.example", "aud": "chat", "exp": LATER})
}

fn jwt(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn signed(kid: Option<&str>, key: &EncodingKey, algorithm: Algorithm) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, &claims(), key).unwrap()
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn private_key() -> EncodingKey {
    EncodingKey::from_ed_der(&STANDARD.decode(PRIVATE).unwrap())
}

#[tokio::test]
async fn valid_jwt_identifies_its_user() {
    assert_eq!(user_by(&auth().await, &jwt(Algorithm::HS256, SECRET, &claims())).await, Some("alice".into()));
}

#[tokio::test]
async fn jwt_with_a_wrong_claim_secret_or_algorithm_is_refused() {
    let auth = auth().await;
    let bad = [
        with("sub", json!("{alice}")),
        with("sub", json!(7)),
        with("iss", json!("evil.example")),
        with("aud", json!("mail")),
        with("exp", json!(1)),
        with("exp", json!("4102444800")),
        with("exp", json!(null)),
        with("nbf", json!(LATER)),
        without("sub"),
        without("iss"),
        without("aud"),
        without("exp"),
    ];
    for claims in bad {
        assert_eq!(user_by(&auth, &jwt(Algorithm::HS256, SECRET, &claims)).await, None, "{claims}");
    }
    let forged = jwt(Algorithm::HS256, "another secret of thirty-two bytes!!", &claims());
    assert_eq!(user_by(&auth, &forged).await, None);
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        assert_eq!(user_by(&auth, &jwt(algorithm, SECRET, &claims())).await, None, "{algorithm:?}");
    }
}

#[tokio::test]
async fn unsigned_or_mangled_jwt_is_refused() {
    let auth = auth().await;
    let good = jwt(Algorithm::HS256, SECRET, &claims());
    let payload = BASE64.encode(claims().to_string());
    let none = format!("{}.{payload}.", BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#));
    for bad in [&none, &good[..good.len() - 1], &format!("{good}x"), "", "a.b.c", &"x".repeat(5000)] {
        assert_eq!(user_by(&auth, bad).await, None, "{bad}");
    }
}

fn document(keys: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"keys": keys}).to_string()).unwrap();
    file
}

fn public(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": PUBLIC_X, "kid": kid, "use": "sig", "alg": "EdDSA"})
}

#[tokio::test]
async fn jwks_key_verifies_only_its_own_algorithm() {
    let file = document(&json!([public("one")]));
    let auth = auth_with(&options("", file.path().to_str().unwrap())).await.unwrap();
    let key = private_key();
    assert_eq!(user_by(&auth, &signed(Some("one"), &key, Algorithm::EdDSA)).await, Some("alice".into()));
    assert_eq!(user_by(&auth, &signed(Some("two"), &key, Algorithm::EdDSA)).await, None, "no such key");
    assert_eq!(user_by(&auth, &signed(None, &key, Algorithm::EdDSA)).await, None, "no key named");
    // The classic attack: the public key as the secret of HS256.
    for secret in [PUBLIC_X.as_bytes(), &BASE64.decode(PUBLIC_X).unwrap()] {
        let forged = signed(Some("one"), &EncodingKey::from_secret(secret), Algorithm::HS256);
        assert_eq!(user_by(&auth, &forged).await, None);
    }
}

#[tokio::test]
async fn new_jwks_key_is_found_without_a_fetch_for_every_jwt() {
    let file = document(&json!([public("one")]));
    let auth = auth_with(&options("", file.path().to_str().unwrap())).await.unwrap();
    let key = private_key();
    let jwt = signed(Some("two"), &key, Algorithm::EdDSA);
    std::fs::write(file.path(), json!({"keys": [public("one"), public("two")]}).to_string()).unwrap();
    assert_eq!(user_by(&auth, &jwt).await, None, "fetched a moment ago");
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(user_by(&auth, &jwt).await, Some("alice".into()));
}

#[tokio::test]
async fn insecure_or_unreadable_jwks_documents_are_refused() {
    let weak = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "weak"});
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"});
    let misfit = json!({"kty": "OKP", "crv": "Ed25519", "x": PUBLIC_X, "kid": "misfit", "alg": "RS256"});
    let mut nameless = public("x");
    nameless.as_object_mut().unwrap().remove("kid");
    for keys in [
        json!([weak]),
        json!([secret]),
        json!([misfit]),
        json!([nameless]),
        json!([]),
        json!([public("a"), public("a")]),
    ] {
        let file = document(&keys);
        assert!(auth_with(&options("", file.path().to_str().unwrap())).await.is_err(), "{keys}");
    }
    assert!(auth_with(&options("", "http://keys.example/jwks.json")).await.is_err(), "not by http");
    assert!(auth_with(&options("", "/nowhere/jwks.json")).await.is_err());
    assert!(auth_with(&options(SECRET, "/nowhere/jwks.json")).await.is_err(), "one signer");
}

#[tokio::test]
async fn token_is_accepted_only_for_its_scopes() {
    let auth = auth().await;
    assert!(auth.require(&headers("service"), Scope::Consume).await.is_ok());
    assert!(auth.require(&headers("admin"), Scope::Admin).await.is_ok());
    for (token, scope) in [("service", Scope::Admin), ("reader", Scope::Consume), ("admin", Scope::Reset)] {
        assert!(auth.require(&headers(token), scope).await.is_err(), "{token}");
    }
    let user = jwt(Algorithm::HS256, SECRET, &claims());
    assert!(auth.require(&headers(&user), Scope::Consume).await.is_err(), "a user is not a service");
}

#[tokio::test]
async fn missing_repeated_or_non_bearer_credentials_are_refused() {
    let auth = auth().await;
    let mut twice = headers("service");
    twice.append(header::AUTHORIZATION, "Bearer admin".parse().unwrap());
    assert!(auth.identify(&twice).await.is_err());
    let mut basic = HeaderMap::new();
    basic.insert(header::AUTHORIZATION, "Basic service".parse().unwrap());
    assert!(auth.identify(&basic).await.is_err());
    assert!(auth.identify(&HeaderMap::new()).await.is_err());
}

#[test]
fn look_alike_or_repeated_x_user_id_is_refused() {
    for name in ["x_user_id", "x-user_id", "x_user-id"] {
        let mut headers = HeaderMap::new();
        headers.insert(header::HeaderName::from_static(name), "bob".parse().unwrap());
        assert!(named_user(&headers).is_err(), "{name}");
    }
    let mut twice = HeaderMap::new();
    twice.append(X_USER_ID, "bob".parse().unwrap());
    twice.append(X_USER_ID, "eve".parse().unwrap());
    assert!(named_user(&twice).is_err());
}

#[tokio::test]
async fn weak_or_missing_secrets_are_refused() {
    assert!(auth_with(&options("short", "")).await.is_err());
    assert!(auth_with(&options("", "")).await.is_err());
    assert!(auth_with(&JwtOptions { issuer: "", ..options(SECRET, "") }).await.is_err());
    assert!(auth_with(&JwtOptions { audience: "", ..options(SECRET, "") }).await.is_err());
}

/// Serves a document with this body and returns its URL.
async fn web_server(body: String) -> String {
    serve(axum::Router::new().fallback(async move || body.clone())).await
}

/// Serves a document with this router and returns its URL.
async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    url
}

#[tokio::test]
async fn document_is_fetched_from_a_url_unless_it_is_too_large() {
    let good = web_server(json!({"keys": [public("one")]}).to_string()).await;
    let auth = auth_with(&options("", &good)).await.unwrap();
    let jwt = signed(Some("one"), &private_key(), Algorithm::EdDSA);
    assert_eq!(user_by(&auth, &jwt).await, Some("alice".into()));
    let huge = web_server(json!({"keys": [public("one")], "padding": "x".repeat(70_000)}).to_string()).await;
    assert!(auth_with(&options("", &huge)).await.is_err());
}

#[tokio::test]
async fn old_keys_are_replaced_even_if_the_client_disconnects_during_the_fetch() {
    let documents = ["one", "two"].map(|kid| json!({"keys": [public(kid)]}).to_string());
    let (asked, may_answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(1)));
    let served = (Arc::clone(&asked), Arc::clone(&may_answer));
    let router = axum::Router::new().fallback(async move || {
        let number = served.0.fetch_add(1, Ordering::SeqCst);
        served.1.acquire().await.unwrap().forget();
        documents[number].clone()
    });
    let auth = auth_with(&options("", &serve(router).await)).await.unwrap();
    let [old, new] = ["one", "two"].map(|kid| signed(Some(kid), &private_key(), Algorithm::EdDSA));
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    tokio::time::resume();
    let mut client = Box::pin(user_by(&auth, &new));
    while asked.load(Ordering::SeqCst) < 2 {
        assert_eq!(poll!(&mut client), Poll::Pending, "the document is not there yet");
        yield_now().await;
    }
    drop(client);
    may_answer.add_permits(1);
    assert_eq!(user_by(&auth, &new).await, Some("alice".into()));
    assert_eq!(user_by(&auth, &old).await, None, "a key that was withdrawn");
}

#[tokio::test]
async fn randomly_mangled_jwts_are_refused() {
    let auth = auth().await;
    let good = jwt(Algorithm::HS256, SECRET, &claims());
    let mut random = fastrand::Rng::with_seed(20_261_123);
    for _ in 0..200_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.alphanumeric() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b".-_A0"[random.usize(..5)]),
            }
        }
        let bad = String::from_utf8(bytes).unwrap();
        // The last character of base64 has unused bits.
        if bad != good && bad[..bad.len() - 1] != good[..good.len() - 1] {
            assert!(auth.identify(&headers(&bad)).await.is_err(), "{bad}");
        }
    }
}
