//! What was told of packets, counted for each pair of apps, and which of it gets a line. Pure, but for
//! the clock that says how many lines a second are too many.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    net::IpAddr,
    num::NonZeroU32,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use netfilter_events::{
    nflog::Packet,
    packet::{Header, Transport},
};

use super::{
    known::{Identity, Known},
    reason::{Reason, Verdict},
};

/// How many pairs of apps are told apart; a scanner meets every app there is.
const PAIRS: usize = 10_000;

/// How many denied packets are remembered one by one, for whoever sent one and asks.
const LATEST: usize = 256;

/// Packets of one app to another, with one end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pair {
    /// The app, where it is known.
    pub source: Option<String>,
    pub destination: Option<String>,
    pub reason: Reason,
}

/// How many there were.
#[derive(Debug)]
pub(crate) struct Tally {
    /// All that was told of.
    pub packets: u64,
    /// Of these, the ones since the last line.
    untold: u64,
    lines: DefaultDirectRateLimiter,
}

/// Everything that was told.
#[derive(Debug)]
pub(crate) struct Ledger {
    pairs: BTreeMap<Pair, Tally>,
    /// Times the kernel had more to tell than it could keep for us.
    pub lost: u64,
    /// Packets of pairs beyond those that are told apart.
    pub others: u64,
    latest: VecDeque<(Header, Reason)>,
    accepted_quota: Quota,
    quota: Quota,
}

/// One end of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub app: Option<String>,
    pub space: Option<String>,
    pub organization: Option<String>,
    /// The handle of the container.
    pub container: Option<String>,
    pub ip: IpAddr,
    pub port: Option<u16>,
}

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub verdict: Verdict,
    pub reason: Reason,
    pub source: End,
    pub destination: End,
    pub protocol: String,
    /// Kind and code.
    pub icmp: Option<(u8, u8)>,
    pub mark: u32,
    /// Packets like it that got no line.
    pub more: u64,
}

impl Ledger {
    /// With so many lines in a second for each pair of apps and reason, of what is let through as it should be,
    /// and of the rest.
    pub fn new(accepted_per_second: NonZeroU32, others_per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(others_per_second);
        let accepted_quota = Quota::per_second(accepted_per_second);
        let (pairs, latest) = (BTreeMap::new(), VecDeque::new());
        Self { pairs, lost: 0, others: 0, latest, accepted_quota, quota }
    }

    /// Counts a packet, and says what is to be written about it, if anything. What is not IP, and what
    /// the rules of others tell of in words we do not know, is not our business.
    pub fn note(&mut self, packet: &Packet, known: &Known) -> Option<Line> {
        let reason = Reason::of(&packet.prefix)?;
        let Header { source, destination, transport } = packet.header?;
        self.remember(packet.header?, reason);
        let (from, to) = known.ends(source, destination, packet.mark);
        let pair = Pair {
            source: from.as_ref().map(|identity| identity.app.clone()),
            destination: to.as_ref().map(|identity| identity.app.clone()),
            reason,
        };
        let more = self.count(pair)?;
        let (source_port, destination_port, icmp) = match transport {
            Transport::Ports { source, destination, .. } => (Some(source), Some(destination), None),
            Transport::Icmp(kind, code) => (None, None, Some((kind, code))),
            Transport::Other(_) => (None, None, None),
        };
        Some(Line {
            verdict: reason.verdict(),
            reason,
            source: End::new(from, source, source_port),
            destination: End::new(to, destination, destination_port),
            protocol: transport.name(),
            icmp,
            mark: packet.mark,
            more,
        })
    }

    /// The kernel had more to tell.
    pub fn lose(&mut self) {
        self.lost += 1;
    }

    /// What was counted.
    pub fn pairs(&self) -> impl Iterator<Item = (&Pair, &Tally)> {
        self.pairs.iter()
    }

    /// How many packets met this end.
    pub fn packets(&self, verdict: Verdict) -> u64 {
        let such = self.pairs.iter().filter(|(pair, _)| pair.reason.verdict() == verdict);
        such.map(|(_, tally)| tally.packets).sum()
    }

    /// Why the last packet with these headers was denied, if it was lately.
    pub fn denied(&self, header: &Header) -> Option<Reason> {
        let mut latest = self.latest.iter().rev();
        latest.find(|(denied, _)| denied == header).map(|(_, reason)| *reason)
    }

    fn remember(&mut self, header: Header, reason: Reason) {
        if reason.verdict() == Verdict::Denied {
            if self.latest.len() == LATEST {
                self.latest.pop_front();
            }
            self.latest.push_back((header, reason));
        }
    }

    /// Counts one more; how many went without a line before this one, if this one is to have one.
    fn count(&mut self, pair: Pair) -> Option<u64> {
        let is_full = self.pairs.len() >= PAIRS;
        let quota = match pair.reason.verdict() {
            Verdict::Accepted => self.accepted_quota,
            Verdict::Denied | Verdict::WouldDeny => self.quota,
        };
        let tally = match self.pairs.entry(pair) {
            Entry::Occupied(tally) => tally.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.others += 1;
                return None;
            }
            Entry::Vacant(place) => {
                place.insert(Tally { packets: 0, untold: 0, lines: RateLimiter::direct(quota) })
            }
        };
        tally.packets += 1;
        if tally.lines.check().is_err() {
            tally.untold += 1;
            return None;
        }
        Some(std::mem::take(&mut tally.untold))
    }
}

impl End {
    fn new(identity: Option<Identity>, ip: IpAddr, port: Option<u16>) -> Self {
        let Identity { app, space, organization, container } = match identity {
            Some(identity) => identity,
            None => {
                return Self {
                    app: None,
                    space: None,
                    organization: None,
                    container: None,
                    ip,
                    port,
                };
            }
        };
        Self { app: Some(app), space, organization, container, ip, port }
    }
}

#[cfg(test)]
mod tests {
    use policy::Protocol;

    use super::*;
    use crate::denied::known::tests::known;

    fn packet(prefix: &str, source: [u8; 4], destination: [u8; 4], mark: u32) -> Packet {
        let transport =
            Transport::Ports { protocol: Protocol::Tcp, source: 40000, destination: 8080 };
        let header = Header { source: source.into(), destination: destination.into(), transport };
        Packet { prefix: prefix.into(), mark, input: None, output: None, header: Some(header) }
    }

    fn ledger(lines_per_second: u32) -> Ledger {
        let some = NonZeroU32::new(lines_per_second).unwrap();
        Ledger::new(some.saturating_mul(NonZeroU32::new(3).unwrap()), some)
    }

    #[test]
    fn a_line_names_both_apps_and_the_port() {
        let known = known(&[("10.255.30.3", "db")], &[(1, "web")]);
        let packet = packet("DENY_C2C_IN", [10, 255, 31, 2], [10, 255, 30, 3], 1);
        let line = ledger(1).note(&packet, &known).unwrap();
        assert_eq!((line.verdict, line.reason), (Verdict::Denied, Reason::NoPolicy));
        assert_eq!(line.source.app.as_deref(), Some("web"), "told by its mark");
        assert_eq!(line.destination.app.as_deref(), Some("db"), "told by its address");
        assert_eq!((line.destination.port, line.protocol.as_str()), (Some(8080), "tcp"));
    }

    #[test]
    fn a_pair_that_has_had_its_lines_leaves_others_theirs() {
        let known = known(&[("10.255.30.3", "db"), ("10.255.30.4", "log")], &[(1, "web")]);
        let to = |last| packet("DENY_C2C_IN", [10, 255, 31, 2], [10, 255, 30, last], 1);
        let mut ledger = ledger(1);
        assert!(ledger.note(&to(3), &known).is_some());
        // A second may pass between two packets, but not between each two of so many.
        let lines = (0..1000).filter(|_| ledger.note(&to(3), &known).is_some()).count();
        assert!(lines < 1000, "{lines}");
        assert!(ledger.note(&to(4), &known).is_some());
        let counts: Vec<_> = ledger.pairs().map(|(_, tally)| tally.packets).collect();
        assert_eq!(counts, [1001, 1]);
        assert_eq!((ledger.packets(Verdict::Denied), ledger.packets(Verdict::Accepted)), (1002, 0));
    }

    #[test]
    fn what_is_let_through_has_a_ration_of_its_own() {
        let known = known(&[("10.255.30.3", "db")], &[(1, "web")]);
        let lines = |prefix: &str| {
            let mut ledger = Ledger::new(NonZeroU32::new(50).unwrap(), NonZeroU32::MIN);
            let packet = packet(prefix, [10, 255, 31, 2], [10, 255, 30, 3], 1);
            (0..50).filter(|_| ledger.note(&packet, &known).is_some()).count()
        };
        assert_eq!(lines("OK_C2C"), 50);
        assert!(lines("DENY_C2C_IN") < 50);
    }

    #[test]
    fn more_pairs_than_can_be_told_apart_are_counted_together() {
        let known = known(&[], &[]);
        let mut ledger = ledger(1);
        for pair in 0..PAIRS {
            let (source, destination) = (Some(format!("app-{pair}")), None);
            ledger.count(Pair { source, destination, reason: Reason::NoPolicy });
        }
        let packet = packet("DENY_C2C_IN", [10, 255, 31, 2], [10, 255, 30, 3], 1);
        assert_eq!(ledger.note(&packet, &known), None);
        assert_eq!((ledger.others, ledger.pairs().count()), (1, PAIRS));
    }

    #[test]
    fn who_sent_a_packet_lately_can_ask_whether_it_was_denied() {
        let known = known(&[], &[]);
        let mut ledger = ledger(1);
        let of = |last| packet("DENY_C2C_IN", [10, 255, 31, 2], [10, 255, 30, last], 1);
        let denied = |ledger: &Ledger, last| ledger.denied(&of(last).header.unwrap());
        ledger.note(&Packet { prefix: "OK_C2C".into(), ..of(2) }, &known);
        assert_eq!(denied(&ledger, 2), None, "it was let in");
        ledger.note(&of(3), &known);
        // Lines are rationed, what is remembered is not.
        ledger.note(&of(4), &known);
        assert_eq!(denied(&ledger, 3), Some(Reason::NoPolicy));
        assert_eq!(denied(&ledger, 4), Some(Reason::NoPolicy));
        for _ in 0..LATEST {
            ledger.note(&of(5), &known);
        }
        assert_eq!(denied(&ledger, 3), None, "that was long ago");
        assert_eq!(ledger.latest.len(), LATEST);
    }

    #[test]
    fn what_others_tell_of_is_left_to_them() {
        let known = known(&[], &[]);
        let mut ledger = ledger(1);
        assert_eq!(ledger.note(&packet("hello", [1, 2, 3, 4], [5, 6, 7, 8], 0), &known), None);
        let unreadable = Packet { header: None, ..packet("DENY_", [0; 4], [0; 4], 0) };
        assert_eq!(ledger.note(&unreadable, &known), None);
        assert_eq!(ledger.pairs().count(), 0);
    }
}
