//! `--wait`: what is asked, when it ends, and what is said of those who have not confirmed.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{ADD, Server, against, changed, command, count, refused, status, troubled};

/// Times differ from run to run.
fn timeless(text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for index in 1..words.len() {
        let unit = words[index].trim_end_matches(['.', ':', '\n']).lines().next().unwrap_or("");
        if matches!(unit, "ms" | "s") && words[index - 1].parse::<f64>().is_ok() {
            words[index - 1] = "N".to_owned();
        }
    }
    words.join(" ")
}

#[test]
fn waiting_ends_when_every_cell_concerned_has_confirmed() {
    let replies = || {
        vec![
            changed(),
            count(0, &["cell-1", "cell-2"]),
            count(2, &[]),
            status("life", &[("cell-1", Some(7), 0.0), ("cell-2", Some(9), 0.0)]),
        ]
    };
    let server = Server::saying(replies());
    let ran = against(&server, &format!("{ADD} --wait"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "no bar where nobody looks");
    assert_eq!(
        timeless(&ran.stdout),
        "Allowed web -> db, tcp 5432.\nEnforced by 2 cells after N ms.\n"
    );
    let asked = server.asked();
    let of_policy = "GET /networking/v1/external/policies/status?source_id=web&dest_id=db ";
    assert!(asked[1].starts_with(of_policy) && asked[2].starts_with(of_policy), "{asked:?}");
    let of_cells = "GET /networking/v1/external/status?id=db%2Cweb ";
    assert!(asked[3].starts_with(of_cells), "the long answer once, at the end: {asked:?}");
    assert_eq!(asked.len(), 4);

    let ran = against(&Server::saying(replies()), &format!("{ADD} --wait --json"));
    let (front, waited) = ran.stdout.split_once("\"waited_ms\":").unwrap();
    assert_eq!(
        front,
        "{\"revision\":\"life.7\",\"cells\":[\
         {\"cell\":\"cell-1\",\"enforced\":7,\"confirmed\":true},\
         {\"cell\":\"cell-2\",\"enforced\":9,\"confirmed\":true}],"
    );
    assert!(waited.trim_end().trim_end_matches('}').parse::<u64>().unwrap() >= 20);
}

#[test]
fn a_server_that_counts_nothing_and_a_removal_are_watched_cell_by_cell() {
    let cells = || status("life", &[("cell-1", Some(7), 0.0)]);
    let no_such_route = (404, "", "404 page not found\n".to_owned());
    let late = status("life", &[("cell-1", Some(6), 0.0)]);
    let server = Server::saying(vec![changed(), no_such_route, late, cells()]);
    assert_eq!(against(&server, &format!("{ADD} --wait")).code, 0);
    let of_policies = |asked: &[String]| {
        asked.iter().filter(|request| request.contains("/policies/status")).count()
    };
    assert_eq!((of_policies(&server.asked()), server.asked().len()), (1, 4), "asked for once");

    let server = Server::saying(vec![changed(), cells()]);
    let removal = "remove-policy web db --protocol tcp --port 5432 --wait";
    assert_eq!(against(&server, removal).code, 0);
    assert_eq!((of_policies(&server.asked()), server.asked().len()), (0, 2));
}

#[test]
fn where_no_cell_is_concerned_there_is_nothing_to_wait_for() {
    let server = Server::saying(vec![changed(), status("life", &[])]);
    let ran = against(&server, &format!("{ADD} --wait"));
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!(ran.stdout, @r"
    Allowed web -> db, tcp 5432.
    No cell runs web or db, so nobody need confirm it.
    ");
}

#[test]
fn stragglers_are_named_and_the_exit_code_is_5() {
    let cells = [("cell-1", Some(7), 0.0), ("cell-2", Some(6), 0.0), ("cell-3", None, 432.1)];
    let server = Server::saying(vec![changed(), status("life", &cells)]);
    let ran = against(&server, &format!("{ADD} --wait --timeout 1"));
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "Allowed web -> db, tcp 5432.\n"));
    insta::assert_snapshot!("stragglers", timeless(&ran.stderr));

    let server = Server::saying(vec![changed(), status("life", &cells[2..])]);
    let removal = "remove-policy web db --protocol tcp --port 5432 --wait --timeout 1 --json";
    let ran = against(&server, removal);
    assert_eq!(ran.code, 5);
    assert!(ran.stdout.contains(r#"{"cell":"cell-3","enforced":null,"confirmed":false}"#));
    insta::assert_snapshot!("stragglers-of-a-removal", timeless(&ran.stderr));
}

/// What was done is on the screen while it is waited for the rest.
#[test]
fn what_was_done_is_said_before_it_is_waited_for() {
    let late = status("life", &[("cell-1", Some(6), 0.0)]);
    let removal = "remove-policy web db --protocol tcp --port 5432";
    for (line, said) in [(ADD, "Allowed"), (removal, "Removed")] {
        let server = Server::saying(vec![changed(), late.clone()]);
        let line = format!("{line} --wait --timeout 60 --token x --server {}", server.url);
        let began = Instant::now();
        let mut running =
            command(&line, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(began.elapsed() < Duration::from_secs(30), "it is said in the end");
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(first, format!("{said} web -> db, tcp 5432.\n"));
    }
}

#[test]
fn a_long_wait_is_explained_once_beside_the_answer() {
    // Long enough for two explanations, and the second would be the same.
    let server = Server::saying(vec![changed(), troubled()]);
    let ran = against(&server, &format!("{ADD} --wait --timeout 5"));
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "Allowed web -> db, tcp 5432.\n"));
    let (explained, end) = ran.stderr.split_once("error: ").unwrap();
    assert_eq!(explained, "Waiting for 1 of 2 cells:\n  cell-2: no such table\n");
    assert!(end.starts_with("the change is stored, but 1 of 2 cells did not confirm it"), "{end}");
    let of_cells = |request: &&String| request.starts_with("GET /networking/v1/external/status?");
    let asked = server.asked();
    let asked = asked.iter().filter(of_cells).count();
    assert!((2..=3).contains(&asked), "the long answer is asked for rarely: {asked} times");

    let server = Server::saying(vec![changed(), troubled()]);
    let ran = against(&server, &format!("{ADD} --wait --timeout 3 --json"));
    assert_eq!(ran.code, 5);
    assert!(ran.stderr.starts_with(explained), "{}", ran.stderr);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(answer["cells"][1]["error"], "no such table", "one document: {}", ran.stdout);
}

#[test]
fn what_cannot_be_confirmed_is_said_and_the_exit_code_is_5() {
    let old = Server::saying(vec![(200, "", "{}".to_owned())]);
    let replaced = Server::saying(vec![changed(), status("other", &[])]);
    let silent = Server::saying(vec![changed(), refused(503, "away")]);
    let (code, headers, body) = status("life", &[("cell-1", Some(7), 0.0)]);
    let body = body.replace("\"complete\":true", "\"complete\":false");
    let incomplete = Server::saying(vec![changed(), (code, headers, body)]);
    let mut texts = vec![];
    for server in [old, replaced, silent, incomplete] {
        let ran = against(&server, &format!("{ADD} --wait --timeout 1"));
        assert_eq!((ran.code, ran.stdout.as_str()), (5, "Allowed web -> db, tcp 5432.\n"));
        texts.push(timeless(&ran.stderr));
    }
    insta::assert_snapshot!("unconfirmed", texts.join("\n"));
}

#[test]
fn a_change_that_could_not_be_watched_is_not_made() {
    let scopes = "provided scopes [network.write] do not include allowed scopes [network.admin]";
    let mut texts = vec![];
    for line in [ADD, "remove-policy web db --protocol tcp --port 5432"] {
        let server = Server::saying_of_waiting(refused(403, scopes), vec![changed()]);
        let ran = against(&server, &format!("{line} --wait"));
        assert_eq!((ran.code, ran.stdout.as_str()), (4, ""));
        assert_eq!(server.asked(), Vec::<String>::new(), "nothing was changed");
        texts.push(ran.stderr);
        assert_eq!(against(&server, line).code, 0, "the scope is good enough for the change alone");
    }
    assert_eq!(texts[0], texts[1]);
    insta::assert_snapshot!(
        texts[0],
        @"error: nothing was changed: --wait needs the scope network.admin, which your token lacks; use one that has it, or leave out --wait (cells enforce the change all the same)"
    );

    let away = Server::saying_of_waiting(refused(503, "away"), vec![changed()]);
    assert_eq!(against(&away, &format!("{ADD} --wait")).code, 3);
    let old = Server::saying_of_waiting(
        (404, "", "404 page not found\n".to_owned()),
        vec![(200, "", "{}".to_owned())],
    );
    assert_eq!(against(&old, &format!("{ADD} --wait")).code, 5, "made, and not confirmed");
}

#[test]
fn what_was_there_already_is_said_to_have_been() {
    let server = Server::saying_of_waiting(
        count(0, &[]),
        vec![changed(), count(0, &[]), status("life", &[])],
    );
    let ran = against(&server, &format!("{ADD} --wait"));
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.starts_with("There was web -> db, tcp 5432 already.\n"), "{}", ran.stdout);
}
