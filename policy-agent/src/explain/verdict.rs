//! The verdict, and the reason for it, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Found, Place};
use crate::{
    allowances::Allowance,
    model::{Fate, Why},
};

/// What becomes of a packet; in JSON the words people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Our rules let it pass.
    #[serde(rename = "passes")]
    Passes,
    /// They do not, or those of the other cell will not.
    #[serde(rename = "is refused")]
    Refused,
    /// The networker's rules, or an operator's, decide.
    #[serde(rename = "is not for policies to decide")]
    NotForPolicies,
    /// Neither end is here.
    #[serde(rename = "is not for this cell to decide")]
    NotForThisCell,
    /// Only the kernel knows.
    #[serde(rename = "is for rules of a former run to decide")]
    OfFormerRun,
}

impl From<Fate> for Verdict {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Accepted => Self::Passes,
            Fate::Refused => Self::Refused,
            Fate::Passed => Self::NotForPolicies,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What is to be said where an end is no container's, or none is here: no policy can be about that.
pub(super) fn beyond_policies(
    source: Place,
    destination: &Found<'_>,
) -> Option<(Verdict, &'static str)> {
    use Place::{Here, Host, OtherCell, Outside};
    let told = match (source, destination.place) {
        (Host, Here) if destination.app.is_none() => (
            Verdict::NotForPolicies,
            "It comes from this host itself, and no known app runs at that address of this cell.",
        ),
        (Host, Here) => (
            Verdict::Passes,
            "It comes from this host itself, whose own packets to its containers are not filtered.",
        ),
        (Host, OtherCell) => (
            Verdict::Refused,
            "It comes from this host itself, so it bears the mark of no app, and the cell of its destination \
             refuses it.",
        ),
        (_, Host) => (
            Verdict::NotForPolicies,
            "It is for this host itself: a mapped port may lead on to a container, and else the rules about \
             what comes to the host decide.",
        ),
        (Host, Outside) => (
            Verdict::NotForPolicies,
            "It goes from this host to the world, and concerns no container.",
        ),
        (Outside, Here) => (
            Verdict::Refused,
            "It comes from outside the overlay, where no policy can let it in from: containers are reached \
             from there through mapped ports of their host.",
        ),
        (OtherCell | Outside, OtherCell | Outside) => (
            Verdict::NotForThisCell,
            "Neither of the two runs on this cell; ask the agent of a cell where one does.",
        ),
        (Here | OtherCell, Here) | (Here, OtherCell | Outside) => return None,
    };
    Some(told)
}

/// Why, in a sentence. `dual` says whether containers have second addresses.
pub(super) fn reason(
    why: &Why<'_>,
    policy: Option<&Allowance>,
    [source, destination]: [&Found<'_>; 2],
    dual: bool,
) -> String {
    match (why, policy) {
        (Why::Established, _) => "Its connection was let in before.",
        (Why::Mapped, _) => "It came in through a mapped port of the cell.",
        (Why::Policy(_), _) => "A policy allows it.",
        (Why::MayLeave, Some(_)) => {
            "A policy allows it; the cell of its destination enforces the same."
        }
        (Why::MayLeave, None) if destination.app.is_some() => {
            "It may leave this cell, as other policies of its app are about this port; the cell of \
             its destination refuses it."
        }
        (Why::MayLeave, None) => {
            "It may leave this cell; whether it arrives is for the cell of its destination to say."
        }
        (Why::NoPolicy, _) if source.place == Place::Here && source.app.is_none() => {
            "No known app runs at the address of this cell it comes from, so no policy can allow it; is there a \
             policy_group_id among the properties of its container?"
        }
        (Why::NoPolicy, _) => "No policy allows it.",
        (Why::Nobody, _) if destination.address.is_ipv6() => {
            "It is for an address of IPv6 at which no known app of this cell runs; containers of other \
             cells are not reached over IPv6."
        }
        (Why::Nobody, _) => {
            "It is for an address of this cell at which no known app runs, so no policy can allow it; is there a \
             policy_group_id among the properties of its container?"
        }
        (Why::Removed, _) => {
            "A policy allowed it that was removed; shadow mode lets it in, and tells of it, until \
             that is promoted."
        }
        (Why::Tolerated, _) => {
            "No policy allows it; shadow mode lets it through, and tells of it, until that is \
             promoted."
        }
        (Why::Disabled, _) => "Policies are disabled on this cell, by its configuration.",
        (Why::Stray, _) => "It belongs to no connection.",
        (Why::Elsewhere, _) if destination.address.is_ipv6() && !dual => {
            "It is of IPv6, which containers of this cell do not have: dual_stack is off."
        }
        (Why::Elsewhere, _) => {
            "It does not concern containers of this cell and the overlay; the security groups of its container decide \
             (/status/security-groups), or its netout_rules, where enable_asg_syncing is off."
        }
    }
    .to_owned()
}
