//! Connections the kernel remembers. A packet of one of these passes as "established" without asking
//! any policy, so taking a policy away must also make the kernel forget the connections it let in:
//! then their next packet is judged anew (design §3).

mod entry;
mod table;

use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
    ops::ControlFlow,
};

use netfilter::Family;
use nfnetlink::Request;
use policy::Protocol;
use thiserror::Error;

use self::{entry::Entry, table::Table};
use crate::requests::Requests;

/// Messages about connections carry this in their upper byte.
const SUBSYSTEM: u16 = 1;
const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;

/// One TCP or UDP connection, as far as deciding about it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Over what.
    pub protocol: Protocol,
    /// Who opened it, before any address translation.
    pub source: IpAddr,
    /// Its port there.
    pub source_port: u16,
    /// Whom it was opened to, before any address translation.
    pub destination: IpAddr,
    /// The port there.
    pub destination_port: u16,
    /// Who answers: the destination after translation.
    pub responder: IpAddr,
    /// The port that answers.
    pub responder_port: u16,
    /// The mark of the packet that opened it, where the firewall saved one; else 0.
    pub mark: u32,
    /// The kernel's number for it, which tells it from a later one between the same ends.
    pub id: Option<u32>,
    /// The conntrack zone it is in; 0 unless somebody makes zones.
    pub zone: u16,
}

/// A connection of another protocol, which has no ports: a ping, most often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portless {
    /// The number of the protocol, as IP has it.
    pub protocol: u8,
    /// Of ICMP: the type of the message that opened it.
    pub kind: Option<u8>,
    /// Who opened it, before any address translation.
    pub source: IpAddr,
    /// Who answers: the destination after translation.
    pub responder: IpAddr,
}

/// Some of the connections of a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pick {
    /// Those over this version of IP with this mark; only those that this port answers, if one is named.
    Marked(Family, u32, Option<(Protocol, u16)>),
    /// Those that were opened from this address; only those that this port answers, if one is named.
    From(IpAddr, Option<(Protocol, u16)>),
}

/// The connections of a network namespace.
pub trait Connections: Send {
    /// All TCP and UDP connections, over both versions of IP.
    fn list(&mut self) -> Result<Vec<Connection>, ConntrackError>;

    /// Those that any of `picks` means, each once.
    fn pick(&mut self, picks: &BTreeSet<Pick>) -> Result<Vec<Connection>, ConntrackError> {
        let mut connections = self.list()?;
        connections.retain(|connection| picks.iter().any(|pick| pick.means(connection)));
        Ok(connections)
    }

    /// Makes the kernel forget `connections`; how many there still were. One that is gone already is
    /// fine, and one that has taken its place since it was listed is left alone.
    fn forget(&mut self, connections: &[Connection]) -> Result<u64, ConntrackError>;

    /// The same for those of other protocols that are `unlawful`; how many there were.
    fn forget_portless(
        &mut self,
        unlawful: &dyn Fn(&Portless) -> bool,
    ) -> Result<u64, ConntrackError>;
}

impl Pick {
    /// Whether it means `connection`.
    pub fn means(self, connection: &Connection) -> bool {
        let Connection { protocol, responder_port, source, mark, .. } = *connection;
        let is_meant = match self {
            Self::Marked(family, wanted, _) => (family, wanted) == (Family::of(source), mark),
            Self::From(address, _) => source == address,
        };
        is_meant && self.port().is_none_or(|port| port == (protocol, responder_port))
    }

    /// Over which version of IP.
    fn family(self) -> Family {
        match self {
            Self::Marked(family, ..) => family,
            Self::From(address, _) => Family::of(address),
        }
    }

    /// Which port answers, if that matters.
    fn port(self) -> Option<(Protocol, u16)> {
        let (Self::Marked(_, _, port) | Self::From(_, port)) = self;
        port
    }
}

/// Why connections could not be listed or forgotten.
#[derive(Debug, Error)]
pub enum ConntrackError {
    /// No socket; "operation not permitted" means that CAP_NET_ADMIN is missing.
    #[error("opening a socket to the kernel's connections")]
    Open(#[source] io::Error),
    /// They could not be listed.
    #[error("listing the kernel's connections")]
    List(#[source] io::Error),
    /// Some could not be forgotten.
    #[error("making the kernel forget connections")]
    Forget(#[source] io::Error),
}

/// Those of the network namespace of the thread that first asks, through one socket for good.
#[derive(Debug, Default)]
pub struct Conntrack {
    requests: Option<Requests>,
}

impl Connections for Conntrack {
    fn list(&mut self) -> Result<Vec<Connection>, ConntrackError> {
        self.entries(|entry| entry.connection())
    }

    /// For each search the kernel goes once through its whole table, as long as that is, and one it tells
    /// takes longer than many it passes over. So what several picks mean is found by one search for what they
    /// have in common, if that tells few.
    ///
    /// A kernel that is too old to leave any out tells all in any case.
    fn pick(&mut self, picks: &BTreeSet<Pick>) -> Result<Vec<Connection>, ConntrackError> {
        if picks.len() > 1
            && let Some(found) = self.pick_at_once(picks)?
        {
            return Ok(found);
        }
        let mut found = HashSet::new();
        for pick in picks {
            let meant = |entry: Entry<'_>| entry.connection().filter(|one| pick.means(one));
            found.extend(self.entries_of(&entry::listing(*pick), meant)?);
        }
        Ok(found.into_iter().collect())
    }

    fn forget(&mut self, connections: &[Connection]) -> Result<u64, ConntrackError> {
        let deletions: Vec<_> = connections.iter().map(entry::deletion).collect();
        self.delete(&deletions)
    }

    fn forget_portless(
        &mut self,
        unlawful: &dyn Fn(&Portless) -> bool,
    ) -> Result<u64, ConntrackError> {
        let deletions = self.entries(|entry| {
            entry.portless().as_ref().is_some_and(unlawful).then(|| entry.deletion())
        })?;
        self.delete(&deletions)
    }
}

impl Conntrack {
    /// Makes the kernel forget all connections of `ip`, of whatever protocol: those it opened, and
    /// those it answers, under whichever address they were opened to. How many there were.
    pub fn forget_address(&mut self, ip: IpAddr) -> Result<u64, ConntrackError> {
        let deletions = self.entries(|entry| {
            let ends = [entry.original.source, entry.reply.source];
            ends.contains(&Some(ip)).then(|| entry.deletion())
        })?;
        self.delete(&deletions)
    }

    /// What `pick` takes of the kernel's list.
    fn entries<T>(
        &mut self,
        pick: impl Fn(Entry<'_>) -> Option<T>,
    ) -> Result<Vec<T>, ConntrackError> {
        self.entries_of(&Request::new(GET, 0), pick)
    }

    fn entries_of<T>(
        &mut self,
        listing: &Request,
        pick: impl Fn(Entry<'_>) -> Option<T>,
    ) -> Result<Vec<T>, ConntrackError> {
        let listed = self.requests()?.list(listing, |seen: &mut Vec<T>, message| {
            if message.kind == NEW {
                seen.extend(pick(Entry::read(message)));
            }
            ControlFlow::Continue(())
        });
        listed.map_err(ConntrackError::List)
    }

    /// The same by one look, unless that would take longer than one for each.
    fn pick_at_once(
        &mut self,
        picks: &BTreeSet<Pick>,
    ) -> Result<Option<Vec<Connection>>, ConntrackError> {
        let means_any = |one: &Connection| picks.iter().any(|pick| pick.means(one));
        let table = Table::read().unwrap_or_default();
        let patience = table.told_during(picks.len() - 1);
        if let Some(listing) = entry::listing_of_all(picks)
            && let Some(found) = self.few(&listing, patience, means_any)?
        {
            return Ok(Some(found));
        }
        let are_few = table.connections < patience;
        are_few.then(|| self.entries(|entry| entry.connection().filter(means_any))).transpose()
    }

    /// Those of a listing that are `meant`; `None` if it goes on after so many.
    fn few(
        &mut self,
        listing: &Request,
        patience: usize,
        meant: impl Fn(&Connection) -> bool,
    ) -> Result<Option<Vec<Connection>>, ConntrackError> {
        type Seen = (usize, Vec<Connection>);
        let listed = self.requests()?.list(listing, |(told, found): &mut Seen, message| {
            if message.kind == NEW {
                *told += 1;
                found.extend(Entry::read(message).connection().filter(&meant));
            }
            if *told > patience { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let (told, found) = listed.map_err(ConntrackError::List)?;
        Ok((told <= patience).then_some(found))
    }

    fn delete(&mut self, deletions: &[Request]) -> Result<u64, ConntrackError> {
        if deletions.is_empty() {
            return Ok(0);
        }
        let done = self.requests()?.each(deletions).map_err(ConntrackError::Forget)?;
        Ok(done.into_iter().map(u64::from).sum())
    }

    fn requests(&mut self) -> Result<&mut Requests, ConntrackError> {
        if self.requests.is_none() {
            self.requests = Some(Requests::open().map_err(ConntrackError::Open)?);
        }
        Ok(self.requests.as_mut().expect("has just been opened"))
    }
}
