//! How long a body may be (spec/policy-server.md §2.4).

use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    external::{DELETE, POLICIES, V0},
    world::{DEADLINE, World, v1},
};

const LONGEST: usize = 10 << 20;

#[tokio::test]
async fn a_body_that_is_too_long_is_read_and_refused() {
    let world = World::start().await;
    for length in [LONGEST + 1, 11 << 20] {
        let body = " ".repeat(length);
        for (path, text) in [
            (POLICIES, r#"{"error": "failed reading request body"}"#),
            (DELETE, r#"{"error": "invalid request body"}"#),
        ] {
            let refused = world.call(&["network.write"], Method::POST, path, &body).await;
            assert_eq!((refused.status, refused.text.as_str()), (400, text));
        }
    }
    let refused = world.admin(Method::DELETE, V0, &" ".repeat(LONGEST + 1)).await;
    assert_eq!(refused.text, r#"{"error": "invalid request body"}"#);
}

/// Nothing tells the length of such a body before its end.
#[tokio::test]
async fn a_body_in_chunks_is_measured_as_it_comes() {
    let world = World::start().await;
    let address = world.external.strip_prefix("http://").unwrap();
    let chunked = async |body: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {POLICIES} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            world.token(&["network.admin"])
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in body.as_bytes().chunks(1 << 20) {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
            stream.write_all(piece).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    };
    let refused = chunked(&" ".repeat(LONGEST + 1)).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(refused.ends_with(r#"{"error": "failed reading request body"}"#), "{refused}");
    let taken = chunked(&v1(&["web db tcp 5432"])).await;
    assert!(taken.starts_with("HTTP/1.1 200 ") && taken.ends_with("{}"), "{taken}");
}

#[tokio::test]
async fn the_longest_body_is_taken() {
    let world = World::start().await;
    let mut longest = v1(&["web db tcp 5432"]);
    longest.push_str(&" ".repeat(LONGEST - longest.len()));
    assert_eq!(world.admin(Method::POST, POLICIES, &longest).await.status, 200);
}

#[tokio::test]
async fn who_is_not_admitted_hears_of_the_token_and_not_of_the_length() {
    let world = World::start().await;
    let body = " ".repeat(LONGEST + 1);
    let refused = world.call(&["other"], Method::POST, POLICIES, &body).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn cells_may_send_as_much_as_they_like() {
    let world = World::start().await;
    let mut body = r#"{"id":"INGRESS","type":"router"}"#.to_owned();
    body.push_str(&" ".repeat(11 << 20));
    let answer = world.put("/networking/v1/internal/tags", &body).await;
    let text = r#"{"id":"INGRESS","tag":"0001","type":"router"}"#;
    assert_eq!((answer.status, answer.text.as_str()), (200, text));
}
