//! Listening to a server that pushes, without a word of our own: what such a connection is cut by, the
//! packets of the server alone must bring about.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use super::hold::{SILENCE, lines};
use super::{Held, Transport, any_like};

/// Connects (over UDP: says hello, once), calls `opened` at the first line, then only reads until
/// nothing comes any more or `go_on` says no.
pub fn hear(
    transport: Transport,
    to: IpAddr,
    port: u16,
    opened: impl FnOnce(),
    go_on: impl FnMut() -> bool,
) -> io::Result<Held> {
    let to = SocketAddr::new(to, port);
    match transport {
        Transport::Tcp => {
            let stream = TcpStream::connect_timeout(&to, SILENCE)?;
            stream.set_read_timeout(Some(SILENCE))?;
            let mut reader = BufReader::new(stream);
            Ok(lines(|| reader.read_line(&mut String::new()), opened, go_on))
        }
        Transport::Udp => {
            let socket = UdpSocket::bind((any_like(to.ip()), 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(SILENCE))?;
            socket.send(b"?\n")?;
            Ok(lines(|| socket.recv(&mut [0; 1024]), opened, go_on))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cut, Listen, serve};
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// What is heard of a server when we would listen to so many lines.
    fn heard(push: bool, transport: Transport, wanted: u64) -> Held {
        let listen = Listen { bind: HERE, tcp: vec![0], udp: vec![0], push };
        let (tcp, udp) = serve("backend", &listen).unwrap();
        let port = if transport == Transport::Tcp { tcp[0] } else { udp[0] };
        let (mut opened, mut left) = (false, wanted);
        let go_on = || {
            left = left.wrapping_sub(1);
            left != u64::MAX
        };
        let held = hear(transport, HERE, port, || opened = true, go_on).unwrap();
        assert_eq!(opened, held.answered > 0);
        held
    }

    #[test]
    fn a_server_that_pushes_is_heard_without_asking() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let held = heard(true, transport, 5);
            assert_eq!((held.how, held.answered), (Cut::Stopped, 5), "{transport}");
        }
    }

    #[test]
    fn a_server_that_only_answers_falls_silent() {
        let held = heard(false, Transport::Tcp, 5);
        assert_eq!((held.how, held.answered), (Cut::Silence, 0));
        // The hello has its answer, and that is all.
        let held = heard(false, Transport::Udp, 5);
        assert_eq!((held.how, held.answered), (Cut::Silence, 1));
    }
}
