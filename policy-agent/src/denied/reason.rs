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
    /// The container opened more connections than it may, or would have if that were not only tried.
    TooMany,
    TriedTooMany,
    /// The container's own chain refuses it from inside the overlay: no agent has let it in.
    Overlay,
    /// Nothing lets the container send it out of the overlay. These are the existing system's words,
    /// followed by a handle, so another program's rules may say so, too.
    Egress,
    /// As [`Self::Egress`], but it passed.
    WatchedEgress,
    /// A rule lets the container send it out of the overlay.
    EgressAllowed,
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

    /// Those that come with the handle of a container behind the text, which may be cut; the longer texts
    /// first.
    const WITH_HANDLE: [Self; 6] = [
        Self::TooMany,
        Self::TriedTooMany,
        Self::Overlay,
        Self::Egress,
        Self::WatchedEgress,
        Self::EgressAllowed,
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
            Self::TooMany => "DENY_ORL_",
            Self::TriedTooMany => "WOULD_DENY_ORL_",
            Self::Overlay => "DENY_C2C_",
            Self::Egress => "DENY_",
            Self::WatchedEgress => "WOULD_DENY_",
            Self::EgressAllowed => "OK_",
        }
    }

    /// The reason such a text gives, if it is one.
    pub fn of(prefix: &str) -> Option<Self> {
        let ours = Self::OURS.into_iter().find(|reason| reason.prefix() == prefix);
        let mut others = Self::WITH_HANDLE.into_iter();
        ours.or_else(|| others.find(|reason| prefix.starts_with(reason.prefix())))
    }

    /// The same of a packet that is only watched.
    pub fn watched(self) -> Self {
        match self {
            Self::NoPolicy => Self::WatchedNoPolicy,
            Self::NoPolicyOut => Self::WatchedNoPolicyOut,
            Self::Stray => Self::WatchedStray,
            Self::Egress => Self::WatchedEgress,
            other => other,
        }
    }

    /// What became of the packet.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::NoPolicy
            | Self::NoPolicyOut
            | Self::Stray
            | Self::Host
            | Self::TooMany
            | Self::Overlay
            | Self::Egress => Verdict::Denied,
            Self::WatchedNoPolicy
            | Self::WatchedNoPolicyOut
            | Self::WatchedStray
            | Self::Removed
            | Self::TriedTooMany
            | Self::WatchedNoGroup
            | Self::WatchedEgress => Verdict::WouldDeny,
            Self::Policy | Self::EgressAllowed => Verdict::Accepted,
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
            Self::TooMany | Self::TriedTooMany => "too_many_connections",
            Self::Overlay => "overlay",
            Self::Egress | Self::WatchedEgress | Self::EgressAllowed => "egress",
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
            Self::TooMany => "the source opens more connections to this port than it may",
            Self::TriedTooMany => "the source opens more connections to this port than it should",
            Self::Overlay => "nothing lets anybody reach the destination from inside the overlay",
            Self::Egress => "no security group lets the source send this out of the overlay",
            Self::WatchedEgress => {
                "no security group would let the source send this out of the overlay"
            }
            Self::EgressAllowed => "a security group lets the source send this out of the overlay",
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
        for (prefix, reason) in [
            ("DENY_d4a2-4242", Reason::Egress),
            ("WOULD_DENY_d4a2-4242", Reason::WatchedEgress),
            ("OK_d4a2-4242", Reason::EgressAllowed),
            ("DENY_ORL_d4a2-4242", Reason::TooMany),
            ("WOULD_DENY_ORL_d4a2", Reason::TriedTooMany),
            ("DENY_C2C_d4a2-4242", Reason::Overlay),
        ] {
            assert_eq!(Reason::of(prefix), Some(reason), "{prefix}");
        }
        assert_eq!(Reason::of("somebody else's"), None);
    }
}
