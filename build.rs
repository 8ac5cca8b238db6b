//! Makes the compile-time check of queries use `.sqlx`, even if a `DATABASE_URL` is set while an application that embeds this crate is built.

#![expect(clippy::disallowed_methods, reason = "cargo passes settings to build scripts by the environment")]

fn main() {
    println!("cargo::rerun-if-changed=.sqlx");
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-env-changed=SQLX_OFFLINE");
    // scripts/prepare-queries sets it, to check against a database and write .sqlx anew.
    if std::env::var_os("SQLX_OFFLINE").is_none() {
        println!("cargo::rustc-env=SQLX_OFFLINE=true");
    }
}
