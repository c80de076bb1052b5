use std::io;

use nix::errno::Errno;
use rtnetlink::Error;
use thiserror::Error;

/// What could not be done, to what, and why.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No netlink socket.
    #[error("opening a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel said no.
    #[error("{doing}")]
    Kernel {
        /// E.g. `replacing route 10.255.31.0/24 via 10.255.31.0 on silk-vtep`.
        doing: String,
        /// The kernel's reason; "operation not permitted" means that CAP_NET_ADMIN is missing.
        #[source]
        source: io::Error,
    },
    /// Something was answered that is no answer.
    #[error("{doing}: {reason}")]
    Protocol {
        /// What was asked.
        doing: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// This kernel has no VXLAN.
    #[error(
        "the kernel cannot make VXLAN devices: load its module vxlan, or use a kernel that has it"
    )]
    NoVxlan,
}

impl LinkError {
    /// Whether it failed because the device is not there any more.
    pub fn is_no_such_link(&self) -> bool {
        let no_such_link = Errno::ENODEV as i32;
        matches!(self, Self::Kernel { source, .. } if source.raw_os_error() == Some(no_such_link))
    }
}

/// What is being done, in words for an operator.
pub(super) struct Doing(String);

impl Doing {
    pub(super) fn new(doing: String) -> Self {
        Self(doing)
    }

    pub(super) fn failed(self, error: Error) -> LinkError {
        match error {
            Error::NetlinkError(message) => {
                LinkError::Kernel { doing: self.0, source: message.to_io() }
            }
            other => LinkError::Protocol { doing: self.0, reason: other.to_string() },
        }
    }

    /// The result of a removal, for which the errors in `absent` are as good as success.
    pub(super) fn gone(self, result: Result<(), Error>, absent: &[Errno]) -> Result<(), LinkError> {
        match result {
            Err(error) if errno(&error).is_some_and(|errno| absent.contains(&errno)) => Ok(()),
            result => result.map_err(|error| self.failed(error)),
        }
    }
}

/// The result of what was being done, for which the errors in `fine` are as good as success.
pub(crate) fn done(
    doing: &str,
    result: Result<(), Error>,
    fine: &[Errno],
) -> Result<(), LinkError> {
    Doing::new(doing.to_owned()).gone(result, fine)
}

/// The kernel's reason, if it was the kernel that refused.
pub(super) fn errno(error: &Error) -> Option<Errno> {
    match error {
        Error::NetlinkError(message) => Some(Errno::from_raw(message.raw_code().abs())),
        _ => None,
    }
}
