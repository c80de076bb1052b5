//! A policy server that says what it is told, request after request.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Status, further header lines, body.
pub type Reply = (u16, &'static str, String);

pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers one request after the other; the last answer is given for ever.
    pub fn saying(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(vec![]));
        let heard = asked.clone();
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let reply = &replies[index.min(replies.len() - 1)];
                heard.lock().unwrap().push(serve(stream.unwrap(), reply));
            }
        });
        Self { url, asked }
    }

    /// The requests so far, each as it came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, (status, headers, body): &Reply) -> String {
    let request = read(&mut stream);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).unwrap();
    request
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
