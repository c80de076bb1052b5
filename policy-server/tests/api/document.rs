//! `docs/api.md`: its lines can be pasted into one shell, and are answered as it says.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::world::World;

const DOCUMENT: &str = include_str!("../../../docs/api.md");

/// Between the outputs of two lines.
const BETWEEN: &str = "\u{1e}";

/// Something to paste, and the JSON that is said to be the answer, if it is JSON.
#[derive(Debug, Default, Clone, PartialEq)]
struct Example {
    line: String,
    answer: Option<Value>,
}

/// The examples of all fenced blocks for a shell.
fn examples(document: &str) -> Vec<Example> {
    let blocks = document.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(of_block).collect()
}

fn of_block(block: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let (mut line, mut answer) = (String::new(), String::new());
    for text in block.lines().chain([""]) {
        match text.strip_prefix("# ").filter(|_| line.is_empty()) {
            Some(told) if !answer.is_empty() || told.starts_with('{') => answer.push_str(told),
            Some(_) => {}
            None => {
                if let (Ok(json), Some(example)) =
                    (serde_json::from_str(&answer), examples.last_mut())
                {
                    example.answer = Some(json);
                }
                answer.clear();
                line.push_str(text);
                line.push('\n');
                // Else it goes on in the next line.
                if line.matches('\'').count() % 2 == 0 {
                    let whole = std::mem::take(&mut line);
                    if !whole.trim().is_empty() {
                        examples.push(Example { line: whole, answer: None });
                    }
                }
            }
        }
    }
    examples
}

/// Whether `told` has the shape of `seen`: the same keys, values of the same kind, and something in every
/// list in which there is something to be seen.
fn same_shape(told: &Value, seen: &Value) -> bool {
    match (told, seen) {
        (Value::Object(told), Value::Object(seen)) => {
            told.keys().eq(seen.keys())
                && told.iter().all(|(key, value)| same_shape(value, &seen[key]))
        }
        (Value::Array(told), Value::Array(seen)) => {
            told.first().is_none_or(|told| seen.first().is_some_and(|seen| same_shape(told, seen)))
        }
        (told, seen) => std::mem::discriminant(told) == std::mem::discriminant(seen),
    }
}

/// The JSON at the end of what was printed.
fn last_json(printed: &str) -> Option<Value> {
    let start = if printed.starts_with('{') { 0 } else { printed.rfind("\n{")? };
    serde_json::from_str(&printed[start..]).ok()
}

/// A cell says what it enforces, so that there is one to be told of.
async fn be_heard(world: &World) {
    let list = "/networking/v1/internal/policies?id=web";
    let version = world.ask(list, &[]).await.header("etag").to_owned();
    let says =
        [("Netman-Cell", "cell-1"), ("Netman-Backend", "nftables"), ("If-None-Match", &version)];
    assert_eq!(world.ask(list, &says).await.status, 304);
}

#[tokio::test]
async fn every_line_can_be_pasted_and_is_answered_as_the_document_says() {
    let world = World::start().await;
    be_heard(&world).await;
    let home = tempfile::tempdir().unwrap();
    // Whatever is refused ends with code 22.
    std::fs::write(home.path().join(".curlrc"), "silent\nfail-with-body\n").unwrap();
    let data = world.data();
    let here = DOCUMENT
        .replace("DIR=./netman-data", &format!("DIR={}", data.display()))
        .replace("API=http://127.0.0.1:4002", &format!("API={}", world.external))
        .replace("IN=https://127.0.0.1:4003", &format!("IN={}", world.internal));
    let examples = examples(&here);
    assert!(examples.len() > 20 && here.contains(&world.internal), "{examples:?}");
    let mut script = String::new();
    for Example { line, .. } in &examples {
        script.push_str(&format!("{line}\nprintf '\\n{BETWEEN}%s{BETWEEN}' $?\n"));
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_policy-server")).parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).env("PATH", path).env("CURL_HOME", home.path());
    let output = tokio::task::spawn_blocking(move || bash.output().unwrap()).await.unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut printed = printed.split(BETWEEN);
    for Example { line, answer } in examples {
        let (said, code) = (printed.next().unwrap(), printed.next().unwrap());
        if line.contains("/policies/cleanup") {
            assert_eq!(code, "22", "an embedded server has nobody to ask");
            continue;
        }
        assert_eq!(code, "0", "{line}{said}");
        let Some(told) = answer else { continue };
        let seen = last_json(said).unwrap_or_else(|| panic!("{line}{said} is no JSON"));
        assert!(same_shape(&told, &seen), "{line}is not answered by {told} but by {seen}");
    }
}

#[test]
fn the_document_is_read_as_a_shell_would_read_it() {
    let block = "Text\n```sh\n# What it does.\ncurl a -d '{\n  \"b\":1}'\n# 200\n# {\"c\":\n#  [2]}\n\nD=1\n```\n";
    let answer = Some(serde_json::json!({"c": [2]}));
    assert_eq!(
        examples(block),
        [
            Example { line: "curl a -d '{\n  \"b\":1}'\n".to_owned(), answer },
            Example { line: "D=1\n".to_owned(), answer: None },
        ]
    );
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert!(same_shape(&json(r#"{"a":[{"b":1}]}"#), &json(r#"{"a":[{"b":7}]}"#)));
    assert!(!same_shape(&json(r#"{"a":[{"b":1}]}"#), &json(r#"{"a":[{"c":1}]}"#)));
    assert!(!same_shape(&json(r#"{"a":[1]}"#), &json(r#"{"a":[]}"#)), "nothing was seen");
    assert!(same_shape(&json(r#"{"a":[]}"#), &json(r#"{"a":[1]}"#)));
}
