//! What became of a packet, as the rules say it in the text before it.

use std::fmt;

/// Whether a packet got through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verdict {
    Denied,
    /// It got through, as it is only watched for now.
    WouldDeny,
    Accepted,
}

/// Why a packet was denied or let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    /// No policy lets the source reach the destination, which is here, at this port.
    NoPolicy,
    /// The source is here, and none of its policies is about this port of other cells.
    NoPolicyOut,
    /// It was not the first packet of a connection, and of no connection anybody remembers.
    Stray,
    /// It came from a container of another cell, and was for this cell itself.
    Host,
    /// As [`Self::NoPolicy`], [`Self::NoPolicyOut`] and [`Self::Stray`], but it passed.
    WatchedNoPolicy,
    WatchedNoPolicyOut,
    WatchedStray,
    /// A policy let it in that was removed, and it passed.
    Removed,
    /// No security group lets the source, which is here, send it out of the overlay, and it passed.
    WatchedNoGroup,
    /// A policy lets it in.
    Policy,
    /// What another program's rules called a denied packet, in the existing system's words.
    OtherDenied,
    /// One that would be denied if it were not only watched.
    OtherWatched,
    /// And one that was let in.
    OtherAccepted,
}

impl Reason {
    /// Those our rules give.
    const OURS: [Self; 10] = [
        Self::NoPolicy,
        Self::NoPolicyOut,
        Self::Stray,
        Self::Host,
        Self::WatchedNoPolicy,
        Self::WatchedNoPolicyOut,
        Self::WatchedStray,
        Self::Removed,
        Self::WatchedNoGroup,
        Self::Policy,
    ];

    /// The text that stands before a packet (spec/cell.md §F: whoever reads logs looks for `DENY_` and
    /// `OK_`).
    pub fn prefix(self) -> &'static str {
        match self {
            Self::NoPolicy => "DENY_C2C_IN",
            Self::NoPolicyOut => "DENY_C2C_OUT",
            Self::Stray => "DENY_C2C_STRAY",
            Self::Host => "DENY_C2C_HOST",
            Self::WatchedNoPolicy => "WOULD_DENY_C2C_IN",
            Self::WatchedNoPolicyOut => "WOULD_DENY_C2C_OUT",
            Self::WatchedStray => "WOULD_DENY_C2C_STRAY",
            Self::Removed => "WOULD_DENY_C2C_REMOVED",
            Self::WatchedNoGroup => "WOULD_DENY_GROUPS",
            Self::Policy => "OK_C2C",
            Self::OtherDenied => "DENY_",
            Self::OtherWatched => "WOULD_DENY_",
            Self::OtherAccepted => "OK_",
        }
    }

    /// The reason such a text gives, if it is one.
    pub fn of(prefix: &str) -> Option<Self> {
        let ours = Self::OURS.into_iter().find(|reason| reason.prefix() == prefix);
        let others = [Self::OtherDenied, Self::OtherWatched, Self::OtherAccepted].into_iter();
        ours.or_else(|| others.into_iter().find(|reason| prefix.starts_with(reason.prefix())))
    }

    /// The same of a packet that is only watched.
    pub fn watched(self) -> Self {
        match self {
            Self::NoPolicy => Self::WatchedNoPolicy,
            Self::NoPolicyOut => Self::WatchedNoPolicyOut,
            Self::Stray => Self::WatchedStray,
            Self::OtherDenied => Self::OtherWatched,
            other => other,
        }
    }

    /// What became of the packet.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::NoPolicy | Self::NoPolicyOut | Self::Stray | Self::Host | Self::OtherDenied => {
                Verdict::Denied
            }
            Self::WatchedNoPolicy
            | Self::WatchedNoPolicyOut
            | Self::WatchedStray
            | Self::Removed
            | Self::WatchedNoGroup
            | Self::OtherWatched => Verdict::WouldDeny,
            Self::Policy | Self::OtherAccepted => Verdict::Accepted,
        }
    }

    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPolicy | Self::WatchedNoPolicy => "no_policy",
            Self::NoPolicyOut | Self::WatchedNoPolicyOut => "no_policy_out",
            Self::Stray | Self::WatchedStray => "stray",
            Self::Host => "host",
            Self::Removed => "removed",
            Self::WatchedNoGroup => "no_group",
            Self::Policy => "policy",
            Self::OtherDenied | Self::OtherWatched | Self::OtherAccepted => "other",
        }
    }

    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoPolicy | Self::WatchedNoPolicy => {
                "no policy lets the source reach this port of the destination"
            }
            Self::NoPolicyOut | Self::WatchedNoPolicyOut => {
                "no policy lets the source reach this port on any other cell"
            }
            Self::Stray | Self::WatchedStray => {
                "it belongs to no connection, and does not ask for one"
            }
            Self::Host => "containers of other cells may not reach the cell itself",
            Self::Removed => "the policy that let the source reach this port was removed",
            Self::WatchedNoGroup => "no security group lets the source reach this port out there",
            Self::Policy => "a policy lets the source reach this port of the destination",
            Self::OtherDenied => "rules beside the policies deny it",
            Self::OtherWatched => "rules beside the policies would deny it",
            Self::OtherAccepted => "rules beside the policies let it through",
        }
    }
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::WouldDeny => "would_deny",
            Self::Accepted => "accepted",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rules_write_is_read() {
        for reason in Reason::OURS {
            assert_eq!(Reason::of(reason.prefix()), Some(reason));
            let letters = match reason.verdict() {
                Verdict::Denied => "DENY_",
                Verdict::WouldDeny => "WOULD_DENY_",
                Verdict::Accepted => "OK_",
            };
            assert!(reason.prefix().starts_with(letters), "{reason:?}");
            assert!(reason.prefix().len() <= 29, "the kernel takes no more");
        }
        assert_eq!(Reason::of("DENY_d4a2-4242"), Some(Reason::OtherDenied));
        assert_eq!(Reason::of("WOULD_DENY_d4a2-4242"), Some(Reason::OtherWatched));
        assert_eq!(Reason::of("OK_0001_db"), Some(Reason::OtherAccepted));
        assert_eq!(Reason::of("somebody else's"), None);
    }
}
