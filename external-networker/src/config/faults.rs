//! Reading values of the configuration; what is wrong is noted, and reading goes on.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    num::{NonZeroU16, NonZeroU32},
    ops::RangeInclusive,
    path::PathBuf,
};

use gocompat::json::Stray;
use ipnet::IpNet;
use policy::Protocol;
use thiserror::Error;

/// Every mistake, in the order of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Error)]
pub(crate) struct Faults(pub(super) Vec<String>);

/// A stand-in, which never leaves, is handed out for a value that is missing or wrong.
impl Faults {
    pub fn note(&mut self, fault: impl fmt::Display) {
        self.0.push(fault.to_string());
    }

    /// The same, beside the keys that may be why something is missing.
    pub fn beside(mut self, strays: &[Stray]) -> Self {
        strays.iter().for_each(|stray| self.note(stray));
        self
    }

    pub fn missing(&mut self, key: &str) {
        self.note(format_args!("missing required config '{key}'"));
    }

    pub fn path(&mut self, key: &str, text: &str) -> PathBuf {
        if text.is_empty() {
            self.missing(key);
        }
        text.into()
    }

    pub fn parsed<T: std::str::FromStr>(&mut self, key: &str, text: &str, what: &str) -> Option<T> {
        if text.is_empty() {
            self.missing(key);
            return None;
        }
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.note(format_args!("config '{key}' is {text:?}, expected {what}"));
        }
        parsed
    }

    /// The same for what may be left out.
    pub fn optional<T: std::str::FromStr>(
        &mut self,
        key: &str,
        text: &str,
        what: &str,
    ) -> Option<T> {
        if text.is_empty() { None } else { self.parsed(key, text, what) }
    }

    pub fn port_range(&mut self, start: i64, total: i64) -> RangeInclusive<u16> {
        for (key, value) in [("start_port", start), ("total_ports", total)] {
            if value == 0 {
                self.missing(key);
            }
        }
        if start == 0 || total == 0 {
            return 0..=0;
        }
        // The BOSH defaults, 61000 and 5000, run past the last port there is.
        let end = start.saturating_add(total).saturating_sub(1).min(i64::from(u16::MAX));
        match (u16::try_from(start), u16::try_from(end)) {
            (Ok(start), Ok(end)) if start <= end => start..=end,
            _ => {
                self.note(format_args!(
                    "config 'start_port' is {start} and 'total_ports' {total}, expected a range of ports"
                ));
                0..=0
            }
        }
    }

    /// 0 is the same as nothing.
    pub fn port(&mut self, key: &str, given: i64, default: NonZeroU16) -> NonZeroU16 {
        match u16::try_from(given) {
            Ok(port) => NonZeroU16::new(port).unwrap_or(default),
            Err(_) => {
                self.note(format_args!("config '{key}' is {given}, expected a port"));
                default
            }
        }
    }

    pub fn interface(&mut self, key: &str, text: &str) -> netfilter::Interface {
        self.parsed(key, text, "the name of an interface")
            .unwrap_or_else(|| "none".parse().expect("a short word can name an interface"))
    }

    /// Names of interfaces; none at all where any is wrong.
    pub fn interfaces(&mut self, key: &str, texts: &[String]) -> Vec<netfilter::Interface> {
        texts.iter().map(|text| self.interface(key, text)).collect()
    }

    /// From 1 to the 10,000 a second that the kernel can count; 0 is the same as nothing.
    pub fn rate(&mut self, key: &str, given: i64, default: u32) -> NonZeroU32 {
        let given = if given == 0 { i64::from(default) } else { given };
        let rate = u32::try_from(given).ok().filter(|rate| *rate <= 10_000);
        rate.and_then(NonZeroU32::new).unwrap_or_else(|| {
            self.note(format_args!("config '{key}' is {given}, expected 1 to 10000"));
            NonZeroU32::MIN
        })
    }

    pub fn nets(&mut self, key: &str, texts: &[String]) -> Vec<IpNet> {
        let net = |text: &String| self.parsed(key, text, "a network such as 10.0.0.0/8");
        texts.iter().filter_map(net).map(|net: IpNet| net.trunc()).collect()
    }

    pub fn addresses(&mut self, key: &str, texts: &[String]) -> Vec<Ipv4Addr> {
        texts.iter().filter_map(|text| self.parsed(key, text, "an IPv4 address")).collect()
    }

    /// Hexadecimal without `0x`. The low half is where apps' tags are: with anything there, what
    /// comes in through a mapped port could pass for an app, and an app for that (spec/cell.md §G).
    pub fn mark(&mut self, key: &str, text: &str) -> u32 {
        match u32::from_str_radix(text, 16) {
            Ok(mark) if mark > 0 && mark.trailing_zeros() >= 16 => mark,
            _ => {
                self.note(format_args!(
                    "config '{key}' is {text:?}, expected hexadecimal digits that end in 0000"
                ));
                0
            }
        }
    }

    pub fn dns_servers(&mut self, texts: &[String]) -> Vec<IpAddr> {
        let mut servers = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(server) => servers.push(server),
                Err(_) => {
                    let fault = format!("invalid DNS server {text:?}, must be valid IP address");
                    self.note(fault);
                }
            }
        }
        servers
    }

    pub fn services(&mut self, tcp: &[String], udp: &[String]) -> Vec<(Protocol, SocketAddrV4)> {
        let tcp = tcp.iter().map(|text| ("host_tcp_services", Protocol::Tcp, text));
        let udp = udp.iter().map(|text| ("host_udp_services", Protocol::Udp, text));
        let mut services = Vec::new();
        for (key, protocol, text) in tcp.chain(udp) {
            let address = self.parsed(key, text, "an IPv4 address and a port such as 10.0.0.1:80");
            services.extend(address.map(|address| (protocol, address)));
        }
        services
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}
