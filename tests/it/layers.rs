//! The layers of the library: each uses only those before it in `domain → store → gate → audit → jobs → runtime`.
//!
//! Between crates, Cargo enforces the direction. Inside the library this test does: it reads every path that begins
//! with `crate::` or leaves its layer by `super::`, in code and in `use` groups; comments and strings do not count.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A top-level module of the library, and the ones that it may name.
const LAYERS: [(&str, &[&str]); 8] = [
    ("domain", &[]),
    ("task", &[]),
    ("store", &["domain", "task"]),
    ("gate", &["domain", "store", "task"]),
    ("audit", &["domain", "store", "gate"]),
    ("jobs", &["domain", "store", "gate", "audit"]),
    ("runtime", &["domain", "store", "gate", "audit", "jobs", "task"]),
    ("lib", &[]),
];

/// A crate that only one folder may name, and the folder.
const ONLY: [(&str, &str); 3] =
    [("redis", "store/redis/"), ("deadpool_redis", "store/redis/"), ("sqlx", "store/postgres/")];

#[test]
fn layers_use_only_earlier_layers() {
    let wrong: Vec<_> = sources().iter().flat_map(|(file, text)| out_of_order(file, text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn redis_and_sqlx_stay_in_their_folders() {
    let wrong: Vec<_> = sources().iter().flat_map(|(file, text)| out_of_place(file, text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_broken_rule_is_found() {
    let upward = "use std::fmt;\nuse crate::{domain::ap::Ap, jobs::{flusher, health::JobHealth}};";
    assert_eq!(out_of_order("gate/consume.rs", upward).len(), 2, "both names of jobs");
    assert_eq!(out_of_order("store/mod.rs", "fn f() -> crate::gate::Gate { todo() }").len(), 1);
    assert_eq!(out_of_order("gate/mod.rs", "use super::jobs::flusher;").len(), 1, "out of the layer by `super`");
    assert_eq!(out_of_order("gate/a/b.rs", "use super::super::super::jobs::Flusher;").len(), 1);
    assert_eq!(out_of_order("novel.rs", "").len(), 1, "a module without a place in the table");
    assert_eq!(out_of_order("gate/mod.rs", "use crate::domain::ap::Ap; // not crate::jobs\n").len(), 0);
    let quoted = "use super::store; /* crate::jobs */ const A: &str = \"crate::jobs\";";
    assert_eq!(out_of_order("gate/mod.rs", quoted).len(), 0);

    assert_eq!(out_of_place("gate/mod.rs", "use redis::{Value, aio};").len(), 2);
    assert_eq!(out_of_place("gate/mod.rs", "fn f(p: &sqlx::PgPool) {}").len(), 1);
    assert_eq!(out_of_place("store/postgres/a.rs", "use ::redis::Value;").len(), 1);
    assert_eq!(out_of_place("gate/mod.rs", "use crate::store::{redis::Script, postgres};").len(), 0);
}

/// `gate/message/consume.rs: crate::jobs::flusher` for each path to a layer that the file's own may not use.
fn out_of_order(file: &str, text: &str) -> Vec<String> {
    let layer = file.split(['/', '.']).next().unwrap();
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{file}: the module {layer} has no place in the table of layers")];
    };
    let depth = file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let forbidden = |path: &&Vec<String>| {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let target = match path[0].as_str() {
            "crate" => path.get(1),
            // As many steps up as the file is deep lead to the root.
            "super" if supers >= depth => path.get(supers),
            _ => None,
        };
        target.is_some_and(|target| {
            let is_layer = LAYERS.iter().any(|(name, _)| name == target);
            is_layer && target != layer && !allowed.contains(&target.as_str())
        })
    };
    let paths = paths(text);
    paths.iter().filter(forbidden).map(|path| format!("{file}: {}", path.join("::"))).collect()
}

/// The same for each path to what another place has for itself.
fn out_of_place(file: &str, text: &str) -> Vec<String> {
    let forbidden = |path: &&Vec<String>| {
        ONLY.iter().any(|(word, place)| {
            // A plain word is some local name; `redis::…` is the crate.
            path[0] == *word && path.len() > 1 && !file.starts_with(place)
        })
    };
    let paths = paths(text);
    paths.iter().filter(forbidden).map(|path| format!("{file}: {}", path.join("::"))).collect()
}

/// Every path in the source, `use` groups written out: `use a::{b, c::d};` is `a::b` and `a::c::d`.
fn paths(source: &str) -> Vec<Vec<String>> {
    let tokens = tokens(source);
    let mut paths = Vec::new();
    let mut rest = tokens.as_slice();
    while !rest.is_empty() {
        rest = take_path(rest, &[], &mut paths);
    }
    paths
}

/// Takes one path, or one token that begins none, and returns what follows.
fn take_path<'a>(tokens: &'a [String], prefix: &[String], paths: &mut Vec<Vec<String>>) -> &'a [String] {
    let mut path = prefix.to_vec();
    let mut rest = tokens;
    if rest[0] == "::" {
        rest = &rest[1..];
    }
    while let Some(name) = rest.first().filter(|token| token.starts_with(is_name) && *token != "use") {
        path.push(name.clone());
        rest = &rest[1..];
        if rest.first().is_none_or(|token| token != "::") {
            break;
        }
        if rest.get(1).is_some_and(|token| token == "{") {
            rest = &rest[2..];
            while rest.first().is_some_and(|token| token != "}") {
                rest = take_path(rest, &path, paths);
            }
            return rest.get(1..).unwrap_or_default();
        }
        rest = &rest[1..];
    }
    if path.len() > prefix.len() {
        paths.push(path);
        return rest;
    }
    // Neither a name nor the `::` before one.
    if rest.len() == tokens.len() { &tokens[1..] } else { rest }
}

/// Names, `::`, and single characters; without comments, strings and spaces.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = raw_string(rest) {
            raw
        } else if first == '"' {
            string(rest)
        } else if let Some(quoted) = ["'\"'", "'\\\"'", "'\\\\'", "'{'", "'}'"].iter().find(|q| rest.starts_with(**q)) {
            quoted.len()
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else if is_name(first) {
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the string literal that the text begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// The length of the raw string literal that the text begins with, if it does.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let body = hashes.trim_start_matches('#');
    let end = format!("\"{}", "#".repeat(hashes.len() - body.len()));
    let body = body.strip_prefix('"')?;
    Some(text.len() - body.len() + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// Every source file, named from `src/`.
fn sources() -> Vec<(String, String)> {
    let src = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("src");
    crate::tidy::files_under(&src, "rs")
        .into_iter()
        .map(|path: PathBuf| {
            let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}
