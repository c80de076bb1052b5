//! One attempt to reach a server, with an exact account of how it ended.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::{Answer, Dialled, Outcome, Transport, any_like};

/// UDP is sent again this often within the time allowed, since one packet may just get lost.
const AGAIN: Duration = Duration::from_millis(250);

/// Tries once, from the network namespace of this thread.
pub fn dial(transport: Transport, to: IpAddr, port: u16, patience: Duration) -> Dialled {
    let began = Instant::now();
    let to = SocketAddr::new(to, port);
    let (outcome, answer) = match transport {
        Transport::Tcp => over_tcp(to, patience),
        Transport::Udp => over_udp(to, patience),
    };
    let ms = began.elapsed().as_secs_f64() * 1000.0;
    let (server, peer_sees) = answer.map(|answer| (answer.server, answer.peer)).unzip();
    Dialled { outcome, ms, server, peer_sees }
}

fn over_tcp(to: SocketAddr, patience: Duration) -> (Outcome, Option<Answer>) {
    let asked = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        stream.write_all(b"?\n")?;
        let mut line = String::new();
        match BufReader::new(stream).read_line(&mut line)? {
            0 => Err(ErrorKind::ConnectionReset.into()),
            _ => Ok(line),
        }
    };
    judge(asked().as_deref())
}

fn over_udp(to: SocketAddr, patience: Duration) -> (Outcome, Option<Answer>) {
    let began = Instant::now();
    let asked = || -> io::Result<String> {
        let socket = UdpSocket::bind((any_like(to.ip()), 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(AGAIN.min(patience)))?;
        let mut buffer = [0; 1024];
        loop {
            socket.send(b"?\n")?;
            match socket.recv(&mut buffer) {
                Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
                Err(error) if is_timeout(&error) && began.elapsed() < patience => {}
                Err(error) => return Err(error),
            }
        }
    };
    judge(asked().as_deref())
}

/// An answer that is not ours counts as none: something else sits at that address.
fn judge(asked: Result<&str, &io::Error>) -> (Outcome, Option<Answer>) {
    match asked {
        Ok(line) => serde_json::from_str(line)
            .map_or((Outcome::Reset, None), |answer| (Outcome::Open, Some(answer))),
        Err(error) if is_timeout(error) => (Outcome::Timeout, None),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => (Outcome::Refused, None),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                (Outcome::Reset, None)
            }
            _ => (Outcome::Unreachable, None),
        },
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::super::serve::{Listen, serve};
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const SOON: Duration = Duration::from_millis(500);

    #[test]
    fn a_server_answers_with_its_name_and_the_callers_address() {
        let listen = Listen { bind: HERE, tcp: vec![0], udp: vec![0], push: false };
        let (tcp, udp) = serve("backend", &listen).unwrap();
        for (transport, port) in [(Transport::Tcp, tcp[0]), (Transport::Udp, udp[0])] {
            let dialled = dial(transport, HERE, port, SOON);
            assert_eq!(dialled.outcome, Outcome::Open, "{transport}");
            assert_eq!(dialled.server.as_deref(), Some("backend"));
            assert_eq!(dialled.peer_sees, Some(HERE));
        }
    }

    #[test]
    fn a_closed_port_is_refused() {
        let free = TcpListener::bind((HERE, 0)).unwrap().local_addr().unwrap().port();
        assert_eq!(dial(Transport::Tcp, HERE, free, SOON).outcome, Outcome::Refused);
        let free = UdpSocket::bind((HERE, 0)).unwrap().local_addr().unwrap().port();
        assert_eq!(dial(Transport::Udp, HERE, free, SOON).outcome, Outcome::Refused);
    }

    #[test]
    fn a_server_that_hangs_up_is_a_reset_and_a_silent_one_a_timeout() {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let hangs_up = thread::spawn(move || {
            drop(listener.accept().unwrap());
            listener
        });
        assert_eq!(dial(Transport::Tcp, HERE, port, SOON).outcome, Outcome::Reset);
        let _silent = hangs_up.join().unwrap();
        assert_eq!(dial(Transport::Tcp, HERE, port, SOON).outcome, Outcome::Timeout);
    }
}
