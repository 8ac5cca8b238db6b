//! Builds again when the pages have changed.

fn main() {
    println!("cargo::rerun-if-changed=web/pages");
}
