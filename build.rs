//! Makes the compile-time check of queries use `.sqlx`, even if an embedding application is built with `DATABASE_URL`.

fn main() {
    println!("cargo::rerun-if-changed=.sqlx");
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-env-changed=SQLX_OFFLINE");
    // scripts/prepare-queries sets it to check queries against a database and regenerate .sqlx.
    if std::env::var_os("SQLX_OFFLINE").is_none() {
        println!("cargo::rustc-env=SQLX_OFFLINE=true");
    }
}
