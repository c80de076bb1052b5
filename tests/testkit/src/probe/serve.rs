//! The server: answers every line, on every port it was given, until its process ends. Or it pushes:
//! whoever came once is sent a line every few milliseconds, and need not say a word.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::Answer;

/// Between two lines of a server that pushes.
const EVERY: Duration = Duration::from_millis(20);

/// Where a server listens.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Address to bind to.
    pub bind: IpAddr,
    /// TCP ports; 0 takes any.
    pub tcp: Vec<u16>,
    /// UDP ports; 0 takes any.
    pub udp: Vec<u16>,
    /// Whether it goes on talking to whoever connected, or sent a datagram.
    pub push: bool,
}

/// Binds everything, starts talking in the background, and returns the TCP and UDP ports taken.
pub fn serve(name: &str, listen: &Listen) -> io::Result<(Vec<u16>, Vec<u16>)> {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for port in &listen.tcp {
        let listener = TcpListener::bind((listen.bind, *port))?;
        tcp.push(listener.local_addr()?.port());
        let (name, push) = (name.to_owned(), listen.push);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = name.clone();
                // A caller that goes away in mid-line concerns nobody else.
                thread::spawn(move || converse(&name, stream, push));
            }
        });
    }
    for port in &listen.udp {
        let socket = UdpSocket::bind((listen.bind, *port))?;
        udp.push(socket.local_addr()?.port());
        let (name, push) = (name.to_owned(), listen.push);
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            loop {
                let Ok((_, peer)) = socket.recv_from(&mut buffer) else { continue };
                let answer = answer(&name, peer.ip());
                let _ = socket.send_to(&answer, peer);
                if let (true, Ok(socket)) = (push, socket.try_clone()) {
                    thread::spawn(move || push_datagrams(&socket, &answer, peer));
                }
            }
        });
    }
    Ok((tcp, udp))
}

fn converse(name: &str, stream: TcpStream, push: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = answer(name, stream.peer_addr()?.ip());
    let mut writer = stream.try_clone()?;
    if push {
        loop {
            writer.write_all(&answer)?;
            thread::sleep(EVERY);
        }
    }
    for line in BufReader::new(stream).lines() {
        line?;
        writer.write_all(&answer)?;
    }
    Ok(())
}

/// A refusal is no reason to stop: one who pushes does not take a hint.
fn push_datagrams(socket: &UdpSocket, line: &[u8], peer: SocketAddr) {
    loop {
        thread::sleep(EVERY);
        let _ = socket.send_to(line, peer);
    }
}

/// One who calls over IPv4 where both are listened for, is told so.
fn answer(name: &str, peer: IpAddr) -> Vec<u8> {
    let peer = peer.to_canonical();
    let mut line = serde_json::to_vec(&Answer { server: name.to_owned(), peer })
        .expect("a name and an address can be written as JSON");
    line.push(b'\n');
    line
}
