//! Which job a command line asks for: by the name of the program, or by words of ours
//! (spec/policy-server.md §1, §10).

use std::ffi::OsStr;

use reqwest::Client;
use serde_json::Value;

use crate::{
    database::Kind,
    deployment::{Deployment, Server, answer},
    program::{Ended, Program, messages},
};

/// The jobs that have both.
const JOBS: [(&str, &str); 3] = [
    ("policy-server-internal", "internal"),
    ("policy-server-asg-syncer", "asg-syncer"),
    ("migrate-db", "migrate"),
];

async fn ended(name: &str, words: &[&str]) -> Ended {
    Program::start(name, words).end().await
}

#[tokio::test]
async fn names_and_words_mean_the_same_job() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("empty.json");
    std::fs::write(&file, "{}").unwrap();
    let flag = ["-config-file", file.to_str().unwrap()];
    for (name, word) in JOBS {
        let by_name = ended(name, &flag).await;
        let by_word = ended("policy-server", &[&[word], &flag[..]].concat()).await;
        assert_eq!((by_name.code, by_word.code), (Some(1), Some(1)), "{by_word:?}");
        assert_eq!(by_name.says(), by_word.says());
        let job = if name == "migrate-db" { "policy-server-migrate-db" } else { name };
        let told = format!("cfnetworking.{job}: could not read config file: invalid config: ");
        assert!(by_word.says().starts_with(&told), "{by_word:?}");

        let [of_name, of_word] =
            [ended(name, &["-h"]).await, ended("policy-server", &[word, "-h"]).await];
        assert_eq!((of_name.code, of_word.code), (Some(0), Some(0)), "{of_word:?}");
        assert!(of_name.stdout.starts_with(&format!("Usage of {name}:\n")), "{of_name:?}");
        assert_eq!(of_name.stdout, of_word.stdout);
        let refused = ended("policy-server", &[word, "-nonsense"]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    }
}

#[tokio::test]
async fn a_server_by_its_word_serves_under_its_name() {
    let deployment = Deployment::migrated(Kind::Postgres).await;
    let config = deployment.config();
    let file = deployment.file(&config);
    let words = [OsStr::new("internal"), OsStr::new("--config-file"), file.as_os_str()];
    let program = Program::start("policy-server", &words);
    let server = Server::listening(program, "https", "internal_listen_port", config).await;
    let url = format!("{}/networking/v1/internal/policies", server.url);
    assert_eq!(answer(deployment.agent().get(url)).await.status, 200);
    let log = server.program.log();
    let name = "testprefix.policy-server-internal";
    assert!(log.iter().all(|line| line["source"] == name), "{log:?}");
    let starting = format!("{name}.starting internal server");
    assert!(messages(&log).contains(&starting.as_str()), "{log:?}");
}

#[tokio::test]
async fn serve_needs_to_be_told_that_it_is_all() {
    let refused = ended("policy-server", &["serve", "-config-file", "/nowhere"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.starts_with("serve needs --all\n"), "{refused:?}");
    for all in ["--all", "-all", "-all=true"] {
        let refused = ended("policy-server", &["serve", all, "-config-file", "/nowhere"]).await;
        let told = "could not read config file: reading config: open /nowhere";
        assert!(refused.code == Some(1) && refused.stderr.contains(told), "{refused:?}");
    }
}

#[tokio::test]
async fn help_and_version_are_told_to_who_asks() {
    let help = ended("policy-server", &["--help"]).await;
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for word in ["internal", "asg-syncer", "migrate", "serve", "token", "--embedded"] {
        assert!(help.stdout.contains(word), "no {word} in {}", help.stdout);
    }
    let version = ended("policy-server", &["--version"]).await;
    let expected = concat!("policy-server ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((version.code, version.stdout.as_str()), (Some(0), expected));
    for (name, _) in JOBS {
        let version = ended(name, &["--version"]).await;
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((version.code, version.stdout), (Some(0), expected));
    }
}

#[tokio::test]
async fn an_embedded_server_needs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"];
    let words = [&["--embedded", "--data-dir", data], &listen[..]].concat();
    let mut program = Program::start("policy-server", &words);
    let file = dir.path().join("addresses.json");
    let read = async || serde_json::from_slice(&std::fs::read(&file).ok()?).ok();
    let addresses: Value = program.until("it says where it listens", read).await;
    let external = addresses["external"].as_str().unwrap();
    assert_eq!(answer(Client::new().get(format!("{external}/health"))).await.status, 200);
    let ended = program.stop("TERM").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}
