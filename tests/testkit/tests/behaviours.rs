//! docs/behaviours.md names tests: each is there.
#![allow(clippy::unwrap_used, reason = "a test that cannot set the scene says where")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The file of a test that is named, and its function.
fn place(named: &str) -> Option<(String, &str)> {
    let (file, function) = named.rsplit_once("::")?;
    Some(match file.strip_prefix("packets::") {
        Some(stories) => (format!("tests/e2e/packets/{stories}.rs"), function),
        None => (file.to_owned(), function),
    })
}

#[test]
fn every_test_that_is_named_is_there() {
    let text = fs::read_to_string(root().join("docs/behaviours.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| §"));
    let (mut checked, mut missing) = (0, Vec::new());
    for named in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
        let Some((file, function)) = place(named) else { continue };
        checked += 1;
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        let is_test = source.contains(&format!("fn {function}("));
        missing.extend((!is_test).then_some(named));
    }
    assert!(checked > 100, "{checked} tests are named");
    assert!(missing.is_empty(), "named, but not there: {missing:#?}");
}

#[test]
fn every_behaviour_names_a_test_or_says_why_there_is_none() {
    let text = fs::read_to_string(root().join("docs/behaviours.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let shown = rows.map(|row| row.trim_end_matches('|').rsplit(" | ").next().unwrap());
    let silent = |last: &&str| {
        let says = ["::", "not done", "nothing to show", "see ", "shown by"];
        !says.iter().any(|word| last.contains(word))
    };
    let silent: Vec<_> = shown.filter(silent).collect();
    assert!(silent.is_empty(), "neither: {silent:#?}");
}
