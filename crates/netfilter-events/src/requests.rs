//! Asking nfnetlink, one question after the other, over a socket that stays open.

use std::{io, ops::ControlFlow};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use nfnetlink::{DONE, ERROR, Message, Request, messages};

/// How many requests are sent at once; the answers to all must fit in the socket's buffer.
const TOGETHER: usize = 64;

/// How often a listing that others disturb is begun again.
const ATTEMPTS: u32 = 3;

/// The longest datagram the kernel sends while listing.
const DATAGRAM: usize = 64 * 1024;

/// A socket for questions.
#[derive(Debug)]
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Requests {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Only a hint: with the default, long listings take more calls.
        let _ = socket.set_rx_buf_sz(1 << 20);
        Ok(Self { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// Hands each message of a listing to `heed`, until that has seen enough. A listing that was disturbed
    /// is given again from the beginning; if that does not help, what was seen has to do.
    pub fn list<S: Default>(
        &mut self,
        request: &Request,
        mut heed: impl FnMut(&mut S, &Message<'_>) -> ControlFlow<()>,
    ) -> io::Result<S> {
        let request = Request { flags: request.flags | NLM_F_DUMP, ..request.clone() };
        let mut attempt = 1;
        loop {
            let mut seen = S::default();
            let sequence = self.send(std::slice::from_ref(&request))?;
            let (mut whole, mut enough) = (true, false);
            self.receive(|message| {
                if message.sequence != sequence {
                    return Ok(false);
                }
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    DONE => return Ok(true),
                    ERROR => return message.failure().map(|()| true),
                    _ => enough = heed(&mut seen, message).is_break(),
                }
                Ok(enough)
            })?;
            if enough {
                // The kernel would go on telling the rest to this socket, and take no other question.
                *self = Self { sequence, ..Self::open()? };
                return Ok(seen);
            }
            if whole || attempt == ATTEMPTS {
                return Ok(seen);
            }
            attempt += 1;
        }
    }

    /// Does what is requested, and says for each request whether there was something to do it to. One
    /// that fails keeps nobody from doing the others.
    pub fn each(&mut self, requests: &[Request]) -> io::Result<Vec<bool>> {
        let mut done = Vec::with_capacity(requests.len());
        let mut failed = None;
        for together in requests.chunks(TOGETHER) {
            let together: Vec<_> = together
                .iter()
                .map(|request| Request { flags: request.flags | NLM_F_ACK, ..request.clone() })
                .collect();
            let last = self.send(&together)?;
            let first = last.wrapping_sub(count(together.len()) - 1);
            let mut left = together.len();
            self.receive(|message| {
                let ours = message.sequence.wrapping_sub(first) < count(together.len());
                if !ours || message.kind != ERROR {
                    return Ok(false);
                }
                let outcome = message.failure();
                done.push(outcome.is_ok());
                failed =
                    failed.take().or(outcome.err().filter(|e| e.kind() != io::ErrorKind::NotFound));
                left -= 1;
                Ok(left == 0)
            })?;
        }
        failed.map_or(Ok(done), Err)
    }

    /// Sends all in one datagram; the number of the last.
    fn send(&mut self, requests: &[Request]) -> io::Result<u32> {
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.write(self.sequence, &mut bytes);
        }
        let sent = self.socket.send(&bytes, 0)?;
        let short = || io::Error::other("the kernel took only part of a request");
        (sent == bytes.len()).then_some(self.sequence).ok_or_else(short)
    }

    /// Reads until `heed` says that it has seen all, or fails.
    fn receive(
        &mut self,
        mut heed: impl FnMut(&Message<'_>) -> io::Result<bool>,
    ) -> io::Result<()> {
        loop {
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            for message in messages(&self.datagram) {
                if heed(&message)? {
                    return Ok(());
                }
            }
        }
    }
}

fn count(requests: usize) -> u32 {
    u32::try_from(requests).expect("is at most TOGETHER")
}
