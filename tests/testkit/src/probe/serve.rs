//! The server: answers every line, on every port it was given, until its process ends.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use super::Answer;

/// Where a server listens.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Address to bind to.
    pub bind: IpAddr,
    /// TCP ports; 0 takes any.
    pub tcp: Vec<u16>,
    /// UDP ports; 0 takes any.
    pub udp: Vec<u16>,
}

/// Binds everything, starts answering in the background, and returns the TCP and UDP ports taken.
pub fn serve(name: &str, listen: &Listen) -> io::Result<(Vec<u16>, Vec<u16>)> {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for port in &listen.tcp {
        let listener = TcpListener::bind((listen.bind, *port))?;
        tcp.push(listener.local_addr()?.port());
        let name = name.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = name.clone();
                // A caller that goes away in mid-line concerns nobody else.
                thread::spawn(move || converse(&name, stream));
            }
        });
    }
    for port in &listen.udp {
        let socket = UdpSocket::bind((listen.bind, *port))?;
        udp.push(socket.local_addr()?.port());
        let name = name.to_owned();
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            loop {
                if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&answer(&name, peer.ip()), peer);
                }
            }
        });
    }
    Ok((tcp, udp))
}

fn converse(name: &str, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = answer(name, stream.peer_addr()?.ip());
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        line?;
        writer.write_all(&answer)?;
    }
    Ok(())
}

fn answer(name: &str, peer: IpAddr) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Answer { server: name.to_owned(), peer })
        .expect("a name and an address can be written as JSON");
    line.push(b'\n');
    line
}
