//! Rules for the repository's files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Maximum number of lines of a file.
const LINES_MAX: usize = 400;
/// Longer files, each with its reason.
const LONGER: [(&str, &str); 3] = [
    ("tests/it/script/property.rs", "one state machine: its steps, their generation and their check belong together"),
    ("tests/it/script/model.rs", "one user's state, and every operation on it"),
    ("src/audit/verify.rs", "one comparison of two stores: what is read, compared and confirmed"),
];
/// Maximum width of a comment line, in characters.
const COMMENT_COLUMNS_MAX: usize = 120;
/// Folders, extensions of their files, and what begins a comment line.
const COMMENTS: [(&str, &str, &str); 12] = [
    ("src", "rs", "//"),
    ("crates", "rs", "//"),
    ("tests", "rs", "//"),
    ("benches", "rs", "//"),
    ("examples", "rs", "//"),
    ("lua", "lua", "--"),
    ("benches", "lua", "--"),
    ("migrations", "sql", "--"),
    ("crates", "sh", "#"),
    ("crates", "toml", "#"),
    ("tests", "toml", "#"),
    ("config", "toml", "#"),
];
/// Beginnings of paths that documents write from the root of the repository.
const FOLDERS: [&str; 12] = [
    "src/",
    "crates/",
    "tests/",
    "lua/",
    "docs/",
    "web/",
    "deploy/",
    "scripts/",
    "benches/",
    "config/",
    "migrations/",
    "examples/",
];

#[test]
fn each_source_file_starts_with_a_doc_comment() {
    let silent =
        ["src", "crates"].iter().flat_map(|dir| check(dir, "rs", |text| !text.starts_with("//!"))).collect::<Vec<_>>();
    assert!(silent.is_empty(), "start with `//! …`: {silent:?}");
}

#[test]
fn each_lua_file_starts_with_a_comment() {
    let silent = check("lua", "lua", |text| !text.starts_with("-- "));
    assert!(silent.is_empty(), "start with a comment, see lua/README.md: {silent:?}");
}

#[test]
fn long_files_are_listed_with_a_reason() {
    let listed = |file: &str| LONGER.iter().any(|(name, _)| *name == file);
    let long: Vec<_> = ["src", "crates", "tests", "benches"]
        .iter()
        .flat_map(|dir| check(dir, "rs", |text| text.lines().count() > LINES_MAX))
        .collect();
    let unlisted: Vec<_> = long.iter().filter(|file| !listed(file)).collect();
    assert!(unlisted.is_empty(), "more than {LINES_MAX} lines; split by ideas, or list with a reason: {unlisted:?}");
    let outdated: Vec<_> = LONGER.iter().filter(|(name, _)| !long.iter().any(|file| file == name)).collect();
    assert!(outdated.is_empty(), "listed as long, but are not: {outdated:?}");
}

#[test]
fn comment_lines_are_not_too_wide() {
    let mut files = Vec::new();
    for (dir, extension, mark) in COMMENTS {
        files.extend(files_under(&root().join(dir), extension).into_iter().map(|path| (path, mark)));
    }
    let scripts = fs::read_dir(root().join("scripts")).unwrap();
    files.extend(scripts.map(|script| (script.unwrap().path(), "#")));
    let mut wide = Vec::new();
    for (path, mark) in files {
        let text = fs::read_to_string(&path).unwrap();
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with(mark) && line.chars().count() > COMMENT_COLUMNS_MAX {
                wide.push(format!("{}:{}", relative(&path), index + 1));
            }
        }
    }
    assert!(wide.is_empty(), "comments wider than {COMMENT_COLUMNS_MAX} columns: {wide:?}");
}

#[test]
fn links_and_paths_in_documents_exist() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = without_code_blocks(&fs::read_to_string(&document).unwrap());
        let folder = document.parent().unwrap();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { folder.join(file) };
            let found = target.exists() && (anchor.is_empty() || has_anchor(&target, anchor));
            if !found {
                missing.push(format!("{}: {link}", relative(&document)));
            }
        }
        for path in paths(&text) {
            if !root().join(path).exists() && !folder.join(path).exists() {
                missing.push(format!("{}: {path}", relative(&document)));
            }
        }
    }
    assert!(missing.is_empty(), "these files or headings do not exist: {missing:?}");
}

#[test]
fn links_paths_and_anchors_are_found() {
    let text = "[a](b.md#c), [d](https://e.org), `src/gate`, `scripts/check --all`, `src/*.rs`, `gate/mod.rs`";
    assert_eq!(links(text).collect::<Vec<_>>(), ["b.md#c"]);
    assert_eq!(paths(text).collect::<Vec<_>>(), ["src/gate", "scripts/check"]);
    assert_eq!(
        anchors("# Two words\n## `script`: it_runs\n# Two words"),
        ["two-words", "script-it_runs", "two-words-1"]
    );
}

#[test]
fn migration_numbers_are_unique() {
    let mut numbers = BTreeMap::<String, Vec<String>>::new();
    for file in check("migrations", "sql", |_| true) {
        let name = file.rsplit('/').next().unwrap();
        let (number, _) = name.split_once('_').unwrap_or_else(|| panic!("{file}: name it NNNN_what_it_does.sql"));
        assert!(number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()), "{file}: four digits first");
        numbers.entry(number.to_owned()).or_default().push(file);
    }
    numbers.retain(|_, files| files.len() > 1);
    assert!(numbers.is_empty(), "the same number twice: {numbers:?}");
}

#[test]
fn no_file_contains_todo_markers() {
    // Escaped, so that this file does not match.
    let words = ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}", "tod\u{6f}!", "unimplement\u{65}d!"];
    let later: Vec<_> =
        [("src", "rs"), ("crates", "rs"), ("tests", "rs"), ("benches", "rs"), ("lua", "lua"), ("migrations", "sql")]
            .iter()
            .flat_map(|(dir, extension)| check(dir, extension, |text| words.iter().any(|word| text.contains(word))))
            .collect();
    assert!(later.is_empty(), "do it now, or open an issue: {later:?}");
}

#[test]
fn cited_decisions_exist() {
    let written: Vec<_> = files_under(&root().join("docs/decisions"), "md")
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.get(..4).map(str::to_owned))
        .collect();
    let mut missing = Vec::new();
    for (dir, extension) in [("src", "rs"), ("crates", "rs"), ("lua", "lua"), ("migrations", "sql")] {
        for path in files_under(&root().join(dir), extension) {
            let text = fs::read_to_string(&path).unwrap();
            missing.extend(cited(&text).filter(|number| !written.contains(number)).map(|n| (relative(&path), n)));
        }
    }
    assert!(missing.is_empty(), "cited, but not in docs/decisions/: {missing:?}");
}

#[test]
fn tested_faults_are_in_the_reliability_table() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (rows, table) = (read("tests/faults/rows/mod.rs"), read("docs/reliability.md"));
    let tried: Vec<(&str, &str)> = rows
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.split_once(" \""))
        .filter_map(|(number, rest)| Some((number, rest.split_once("\" ")?.0)))
        .collect();
    assert!(!tried.is_empty());
    let missing: Vec<_> =
        tried.iter().filter(|(number, name)| !table.contains(&format!("| {number} | {name} "))).collect();
    assert!(missing.is_empty(), "tested, but not in the table: {missing:?}");
    let all = tried.len();
    for (path, words) in [("README.md", "faults"), ("README.zh-CN.md", "种故障")] {
        assert!(read(path).contains(&format!("{all} {words}")), "{path} does not contain \"{all} {words}\"");
    }
    assert!(table.contains(&format!("| {all} of {all} |")), "docs/reliability.md does not contain \"{all} of {all}\"");
}

#[test]
fn citations_are_found() {
    let text = "see decision 0003, docs/decisions/0012-clock.md and decisions 0001 and 0002; not migration 0004";
    assert_eq!(cited(text).collect::<Vec<_>>(), ["0003", "0012", "0001", "0002"]);
}

/// Returns the decision numbers in a text: `decision 0003`, `decisions 0001 and 0002`, `docs/decisions/0012-clock.md`.
fn cited(text: &str) -> impl Iterator<Item = String> {
    let after = |rest: &str| {
        let mut numbers = Vec::new();
        let mut rest = rest.trim_start_matches(['s', '/', ' ']);
        while let Some(number) = rest.get(..4).filter(|number| number.bytes().all(|b| b.is_ascii_digit())) {
            numbers.push(number.to_owned());
            rest = rest[4..].trim_start_matches(", ").trim_start_matches(" and ");
        }
        numbers
    };
    text.match_indices("decision")
        .flat_map(move |(at, word)| after(&text[at + word.len()..]))
        .collect::<Vec<_>>()
        .into_iter()
}

/// Returns the documents whose links and paths are checked.
fn documents() -> Vec<PathBuf> {
    let mut documents = files_under(&root().join("docs"), "md");
    documents
        .extend(["README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"].map(|name| root().join(name)));
    for folder in [root().to_path_buf(), root().join("crates"), root().join("web")] {
        let readmes = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("README.md"));
        documents.extend(readmes.filter(|readme| readme.is_file()));
    }
    documents
}

fn without_code_blocks(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// Returns the targets of links inside the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://"))
}

/// Returns the paths in code spans that begin at the root of the repository, except patterns.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split('`').skip(1).step_by(2).filter_map(|span| span.split_whitespace().next());
    words.filter(|word| {
        FOLDERS.iter().any(|folder| word.starts_with(*folder)) && !word.contains(['*', '<', '…', '{', '$'])
    })
}

fn has_anchor(document: &Path, anchor: &str) -> bool {
    let text = without_code_blocks(&fs::read_to_string(document).unwrap());
    anchors(&text).iter().any(|found| found == anchor)
}

/// Returns the anchors of headings by GitHub's rule: lower case, hyphens for spaces, no punctuation, a number after a
/// repeated heading.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors = Vec::new();
    let mut counts = BTreeMap::new();
    for heading in text.lines().filter(|line| line.starts_with('#')) {
        let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let anchor: String = words.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect();
        let count: &mut u32 = counts.entry(anchor.clone()).or_default();
        anchors.push(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    anchors
}

/// Returns the files below `dir` for which `is_wrong` holds.
fn check(dir: &str, extension: &str, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    files_under(&root().join(dir), extension)
        .into_iter()
        .filter(|path| is_wrong(&fs::read_to_string(path).unwrap()))
        .map(|path| relative(&path))
        .collect()
}

/// Returns the files with this extension below a directory, sorted; none if the directory does not exist.
pub(crate) fn files_under(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let below = |path: PathBuf| {
        if path.is_dir() {
            files_under(&path, extension)
        } else if path.extension().is_some_and(|found| found == extension) {
            vec![path]
        } else {
            Vec::new()
        }
    };
    entries.into_iter().flat_map(below).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn readme_matches_in_both_languages() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (english, chinese) = (read("README.md"), read("README.zh-CN.md"));
    // Compares what is not translated: code blocks, links, and the number of headings, list items and table rows.
    let blocks = |text: &str| text.split("```").skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(blocks(&english), blocks(&chinese));
    let count = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    for start in ["#", "- ", "| "] {
        assert_eq!(count(&english, start), count(&chinese, start), "lines that begin with {start:?}");
    }
    let links = |text: &str| {
        let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
        targets.filter(|target| !target.starts_with("README")).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(links(&english), links(&chinese));
}
