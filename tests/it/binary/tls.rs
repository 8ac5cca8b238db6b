//! TLS to both stores: the gate checks their certificates and refuses untrusted ones.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use quota_gate_dev::{Lifetime, PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

use super::process::Serve;
use crate::support::scratch;

/// Creates a certificate authority and its certificate for localhost in `dir`.
fn certificates(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    for (name, text) in [("ca.pem", authority.pem()), ("cert.pem", server.pem()), ("key.pem", key.serialize_pem())] {
        fs::write(dir.join(name), text).unwrap();
    }
    fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn the_gate_uses_tls_to_redis_and_postgres_and_checks_their_certificates() {
    let (redis_dir, postgres_dir, other) = (scratch("tls-redis"), scratch("tls-postgres"), scratch("tls-other"));
    for dir in [&redis_dir, &postgres_dir, &other] {
        certificates(dir);
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |dir: &Path, name: &str| dir.join(name).display().to_string();
    let redis = RedisServer::start(
        &redis_dir,
        RedisServerOptions {
            lifetime: Lifetime::Scratch,
            extra: vec![
                format!("tls-port {port}"),
                format!("tls-cert-file {}", file(&redis_dir, "cert.pem")),
                format!("tls-key-file {}", file(&redis_dir, "key.pem")),
                format!("tls-ca-cert-file {}", file(&redis_dir, "ca.pem")),
                "tls-auth-clients no".into(),
            ],
            ..RedisServerOptions::default()
        },
    );
    let postgres = PostgresServer::start(
        &postgres_dir,
        PostgresServerOptions {
            lifetime: Lifetime::Scratch,
            extra: vec![
                "ssl=on".into(),
                format!("ssl_cert_file={}", file(&postgres_dir, "cert.pem")),
                format!("ssl_key_file={}", file(&postgres_dir, "key.pem")),
            ],
            ..PostgresServerOptions::default()
        },
    );
    let (redis, postgres) = tokio::join!(redis, postgres);
    let (redis, postgres) = (redis.unwrap(), postgres.unwrap());
    let redis_url = redis
        .url()
        .replace("redis://", "rediss://")
        .replace(&format!("127.0.0.1:{}", redis.port()), &format!("localhost:{port}"));
    let database = |authority: &Path| {
        let url = postgres.url("postgres").replace("127.0.0.1", "localhost");
        format!("{url}?sslmode=verify-full&sslrootcert={}", file(authority, "ca.pem"))
    };
    crate::support::migrate(&postgres.url("postgres")).await;

    let trusted = file(&redis_dir, "ca.pem");
    let gate = Serve::on(&database(&postgres_dir), &redis_url, &[("SSL_CERT_FILE", &trusted)]).await;
    let (status, charged) = gate.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s"})).await;
    assert_eq!((status.as_u16(), &charged["charged"]), (200, &json!(1)));

    let stranger = file(&other, "ca.pem");
    for (database, trusted) in [(database(&postgres_dir), &stranger), (database(&other), &trusted)] {
        let error = Serve::refused(&database, &redis_url, &[("SSL_CERT_FILE", trusted)]);
        assert!(error.to_lowercase().contains("certificate"), "{error}");
    }
}
