//! Listening to what the kernel sends unasked.

use std::{fmt, io};

use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, TokioSocket, protocols::NETLINK_NETFILTER};

use nfnetlink::{Message, messages};

/// The longest datagram the kernel sends.
const DATAGRAM: usize = 64 * 1024;

/// How much the kernel may have to say before we listen. What does not fit is lost, and told as such.
const BUFFER: i32 = 1 << 21;

/// Whether everything was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    All,
    /// The kernel had more to say than it could keep for us.
    NotAll,
}

/// A socket that listens.
pub(crate) struct Listening {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl Listening {
    /// Must be called inside a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        // Only a hint; the kernel has an upper bound of its own.
        let _ = socket.socket_ref().set_rx_buf_sz(BUFFER);
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM) })
    }

    pub fn socket(&self) -> &Socket {
        self.socket.socket_ref()
    }

    /// Waits for a datagram, and hands over its messages.
    pub async fn hear(&mut self, mut heed: impl FnMut(&Message<'_>)) -> io::Result<Heard> {
        self.datagram.clear();
        match self.socket.recv(&mut self.datagram).await {
            Ok(_) => {
                messages(&self.datagram).for_each(|message| heed(&message));
                Ok(Heard::All)
            }
            Err(error) if is_overflow(&error) => Ok(Heard::NotAll),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listening").field(self.socket()).finish()
    }
}

/// `ENOBUFS`: messages were lost, the socket is as good as before.
fn is_overflow(error: &io::Error) -> bool {
    const ENOBUFS: i32 = 105;
    error.raw_os_error() == Some(ENOBUFS)
}
