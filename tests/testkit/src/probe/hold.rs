//! A connection kept open, with a line going each way every few milliseconds, until it is cut.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Transport, any_like};

/// Between two lines.
const EVERY: Duration = Duration::from_millis(20);
/// No answer for this long counts as cut: an established connection whose packets are rejected gets no
/// error from the kernel (ICMP is only a hint to it), it just falls silent. Longer than the
/// retransmission of one lost packet.
pub(super) const SILENCE: Duration = Duration::from_millis(1500);

/// How a held connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Nothing came back any more.
    Silence,
    /// An RST, or an ICMP error.
    Reset,
    /// The other end closed it in good order.
    Closed,
    /// We were told to stop; nobody cut it.
    Stopped,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silence => "silence",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Stopped => "stopped",
        })
    }
}

/// The account of a held connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Why it ended.
    pub how: Cut,
    /// Lines that came from the other end.
    pub answered: u64,
    /// The longest time one took, in milliseconds.
    pub slowest_ms: u128,
}

/// Opens a connection (over UDP: speaks from one socket), calls `opened`, then exchanges lines until it
/// is cut or `go_on` says no.
pub fn hold(
    transport: Transport,
    to: IpAddr,
    port: u16,
    opened: impl FnOnce(),
    mut go_on: impl FnMut() -> bool,
) -> io::Result<Held> {
    let to = SocketAddr::new(to, port);
    let unhurried = || {
        thread::sleep(EVERY);
        go_on()
    };
    match transport {
        Transport::Tcp => {
            let stream = TcpStream::connect_timeout(&to, SILENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SILENCE))?;
            let mut writer = stream.try_clone()?;
            let mut reader = BufReader::new(stream);
            let ask = || {
                writer.write_all(b"?\n")?;
                reader.read_line(&mut String::new())
            };
            Ok(lines(ask, opened, unhurried))
        }
        Transport::Udp => {
            let socket = UdpSocket::bind((any_like(to.ip()), 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(SILENCE))?;
            let ask = || {
                socket.send(b"?\n")?;
                socket.recv(&mut [0; 1024])
            };
            Ok(lines(ask, opened, unhurried))
        }
    }
}

/// Takes lines from `next` until there are no more, or `go_on` says no; calls `opened` at the first.
pub(super) fn lines(
    mut next: impl FnMut() -> io::Result<usize>,
    opened: impl FnOnce(),
    mut go_on: impl FnMut() -> bool,
) -> Held {
    let mut held = Held { how: Cut::Stopped, answered: 0, slowest_ms: 0 };
    let mut opened = Some(opened);
    while go_on() {
        let began = Instant::now();
        held.how = match next() {
            Ok(0) => Cut::Closed,
            Ok(_) => {
                held.answered += 1;
                held.slowest_ms = held.slowest_ms.max(began.elapsed().as_millis());
                if let Some(opened) = opened.take() {
                    opened();
                }
                continue;
            }
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Cut::Silence
            }
            Err(_) => Cut::Reset,
        };
        return held;
    }
    held
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::super::serve::{Listen, serve};
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A server that answers so many lines, then does what it is told with the connection.
    fn held(lines: usize, then: impl FnOnce(TcpStream) + Send + 'static) -> Held {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap()).lines();
            for _ in 0..lines {
                asked.next().unwrap().unwrap();
                (&stream).write_all(b"!\n").unwrap();
            }
            then(stream);
        });
        let mut opened = false;
        let held = hold(Transport::Tcp, HERE, port, || opened = true, || true).unwrap();
        assert!(opened);
        held
    }

    #[test]
    fn the_other_end_hanging_up_is_told_from_silence() {
        let closed = held(3, drop);
        assert_eq!(closed.answered, 3);
        assert!(matches!(closed.how, Cut::Closed | Cut::Reset), "{closed:?}");
        let silent = held(2, |stream| {
            thread::park();
            drop(stream);
        });
        assert_eq!((silent.how, silent.answered), (Cut::Silence, 2));
    }

    #[test]
    fn datagrams_are_exchanged_from_one_socket_until_nobody_answers() {
        let listen = Listen { bind: HERE, tcp: vec![], udp: vec![0], push: false };
        let (_, udp) = serve("backend", &listen).unwrap();
        let mut left = 3;
        let go_on = || {
            left -= 1;
            left >= 0
        };
        let held = hold(Transport::Udp, HERE, udp[0], || {}, go_on).unwrap();
        assert_eq!((held.how, held.answered), (Cut::Stopped, 3));
        let free = UdpSocket::bind((HERE, 0)).unwrap().local_addr().unwrap().port();
        let held = hold(Transport::Udp, HERE, free, || {}, || true).unwrap();
        assert_eq!((held.how, held.answered), (Cut::Reset, 0));
    }

    #[test]
    fn whoever_is_told_to_stop_was_not_cut() {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = hold(Transport::Tcp, HERE, port, || {}, || false).unwrap();
        assert_eq!((held.how, held.answered), (Cut::Stopped, 0));
    }
}
