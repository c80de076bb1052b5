//! A policy server that says what it is told, request after request.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Status, further header lines, body.
pub type Reply = (u16, &'static str, String);

/// The policies from web to db.
const BETWEEN: &str = r#"{"policies":[
    {"source":{"id":"web"},"destination":{"id":"db","protocol":"tcp","ports":{"start":5432,"end":5432}}},
    {"source":{"id":"web"},"destination":{"id":"db","protocol":"udp","ports":{"start":7000,"end":7010}}}
]}"#;

const NO_STATUS: &str = r#"{"life":"life","revision":6,"complete":true,"policies":[]}"#;

pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers one request after the other; the last answer is given for ever. Who asks what there is
    /// between two apps is told of two policies, and who asks how far these have got, before there was a
    /// change, of none; neither is counted as a request.
    pub fn saying(replies: Vec<Reply>) -> Self {
        Self::saying_of_waiting((200, "", NO_STATUS.to_owned()), replies)
    }

    /// The same; who asks before a change how far there is anything to be watched is told `first`.
    pub fn saying_of_waiting(first: Reply, replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(vec![]));
        let heard = asked.clone();
        thread::spawn(move || {
            let mut replies = replies.iter().peekable();
            let mut changed = false;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read(&mut stream);
                if request
                    .starts_with("GET /networking/v1/external/policies?source_id=web&dest_id=db ")
                {
                    say(&mut stream, &(200, "", BETWEEN.to_owned()));
                    continue;
                }
                changed |= request.starts_with("POST ");
                let of_policies = "GET /networking/v1/external/policies/status?source_id=";
                if !changed && request.starts_with(of_policies) {
                    say(&mut stream, &first);
                    continue;
                }
                heard.lock().unwrap().push(request);
                say(&mut stream, replies.peek().unwrap());
                if replies.len() > 1 {
                    replies.next();
                }
            }
        });
        Self { url, asked }
    }

    /// The requests so far, each as it came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn say(stream: &mut TcpStream, (status, headers, body): &Reply) {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).unwrap();
}

fn read(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length: ").map(|length| length.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the request was cut short: {text}");
        request.extend_from_slice(&buffer[..count]);
    }
}
