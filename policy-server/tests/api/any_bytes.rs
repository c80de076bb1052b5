//! Whatever is sent is answered, and by nobody's fault but the sender's: no request alone makes the
//! server fail, or end.

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::{Client, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

use crate::{
    external::{DELETE, POLICIES, V0, V0_DELETE},
    world::{DEADLINE, World, answer},
};

/// Sends each of the requests `strategy` makes to one server, and looks at the answer.
fn each<S, F>(cases: u32, strategy: &S, send: &F)
where
    S: Strategy,
    F: AsyncFn(&World, S::Value),
{
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(World::start());
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let sent = runner.run(strategy, |value| {
        runtime.block_on(send(&world, value));
        Ok(())
    });
    sent.unwrap();
    let alive = runtime.block_on(world.anonymous(Method::GET, "/health"));
    assert_eq!(alive.status, 200);
    runtime.block_on(world.stop());
}

/// Sends `request` byte by byte as it is; returns the status of the answer.
async fn raw(world: &World, request: &[u8]) -> u16 {
    let address = world.external.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut response = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut response)).await.unwrap().unwrap();
    let response = String::from_utf8_lossy(&response);
    let status = response.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{response:?}"));
    status[..3].parse().unwrap()
}

/// Bytes of a request line or a header: anything but what ends it.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let any = any::<u8>().prop_filter("ends the line", |byte| !matches!(byte, b'\r' | b'\n'));
    vec(any, 0..40)
}

#[test]
fn any_path_is_answered() {
    each(200, &(any::<bool>(), line()), &async |world, (in_version, path)| {
        let (before, after): (&[u8], &[u8]) =
            if in_version { (b"/networking/", b"/external/policies") } else { (b"/", b"") };
        let request = [
            b"GET ",
            before,
            &path,
            after,
            b" HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        ];
        let status = raw(world, &request.concat()).await;
        assert!((200..500).contains(&status), "{status}");
    });
}

#[test]
fn any_header_is_answered() {
    let names =
        ["Authorization", "Origin", "X-VCAP-Request-ID", "Content-Length", "Cookie", "Expect"];
    each(200, &(prop::sample::select(names.to_vec()), line()), &async |world, (name, value)| {
        let start =
            format!("GET {POLICIES} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n{name}: ");
        let status = raw(world, &[start.as_bytes(), &value, b"\r\n\r\n"].concat()).await;
        assert!((200..500).contains(&status), "{status}");
    });
}

#[test]
fn any_query_is_answered() {
    let words = "id=|source_id=|dest_id=|&|,|%|web|=|%00|%ff|[ -~é]";
    each(200, &vec(words, 0..8), &async |world, words| {
        let query = words.concat();
        let answer = world.get(&format!("{POLICIES}?{query}")).await;
        assert_eq!(answer.status, 200, "{query:?}");
        answer.json();
        let answer = world.get(&format!("/networking/v1/external/status?{query}")).await;
        assert_eq!(answer.status, 200, "{query:?}");
    });
}

/// Texts that look like bodies, broken in places.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let tokens = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "true",
        "1",
        "-0",
        "8080",
        "8e3",
        "1.5",
        "\"",
        "\\u0000",
        "\"policies\"",
        "\"source\"",
        "\"destination\"",
        "\"id\"",
        "\"tag\"",
        "\"protocol\"",
        "\"tcp\"",
        "\"port\"",
        "\"ports\"",
        "\"start\"",
        "\"end\"",
        " ",
        "\\ud800",
        "\u{7f}",
    ]);
    let likely = vec(tokens, 0..24).prop_map(|tokens| tokens.concat().into_bytes());
    let policy = ("[ -~]{0,4}", "[ -~]{0,4}", any::<i32>(), any::<i32>()).prop_map(
        |(source, destination, start, end)| {
            serde_json::json!({"policies": [{
                "source": {"id": source},
                "destination": {"id": destination, "protocol": "tcp", "port": start,
                                "ports": {"start": start, "end": end}}
            }]})
            .to_string()
            .into_bytes()
        },
    );
    prop_oneof![likely, policy, vec(any::<u8>(), 0..64)]
}

#[test]
fn any_body_is_taken_or_refused_with_json() {
    let paths = prop::sample::select(vec![POLICIES, DELETE, V0, V0_DELETE]);
    each(300, &(paths, body()), &async |world, (path, body)| {
        let request = Client::new()
            .post(format!("{}{path}", world.external))
            .bearer_auth(world.token(&["network.admin"]))
            .body(body);
        let answer = answer(request).await;
        assert!([200, 400].contains(&answer.status), "{answer:?}");
        answer.json();
    });
}

#[test]
fn any_body_of_a_cell_is_taken_or_refused_with_json() {
    let paths = prop::sample::select(vec![
        "/networking/v1/internal/tags",
        "/leases/acquire",
        "/leases/renew",
        "/leases/release",
    ]);
    each(150, &(paths, body()), &async |world, (path, body)| {
        let request = world.cell().put(format!("{}{path}", world.internal)).body(body);
        let answer = answer(request).await;
        // A lease for something that is no address is a 500, by contract with the existing callers.
        assert!(
            [200, 400, 409].contains(&answer.status) || path.starts_with("/leases"),
            "{answer:?}"
        );
        answer.json();
    });
}
