//! How values are read and shown.

use std::{ffi::OsStr, time::Duration};

use clap::{
    Arg, Command,
    builder::{PossibleValue, TypedValueParser},
};
use policy::{AppGuid, EmptyAppGuid, InvalidPortRange, Policy, PortRange, Protocol};

/// How many of several are named before the rest is a number.
const NAMED: usize = 3;

/// Reads one end of a policy. The server's API separates names by commas, so none may have one: asked
/// for, it would be two others.
pub(crate) fn app(text: &str) -> Result<AppGuid, String> {
    if text.contains(',') {
        return Err("it names several apps, and a policy has one at each end".to_owned());
    }
    text.parse().map_err(|error: EmptyAppGuid| error.to_string())
}

/// Reads `--protocol` as [`Protocol`] does, and tells shells what there is to complete.
#[derive(Clone)]
pub(crate) struct Protocols;

impl TypedValueParser for Protocols {
    type Value = Protocol;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Protocol, clap::Error> {
        let read: fn(&str) -> Result<Protocol, policy::UnknownProtocol> = str::parse;
        read.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue>>> {
        let all =
            [Protocol::Tcp, Protocol::Udp].map(|protocol| PossibleValue::new(protocol.as_str()));
        Some(Box::new(all.into_iter()))
    }
}

/// Reads `--port`; the refusal says what would do.
pub(crate) fn ports(text: &str) -> Result<PortRange, String> {
    text.parse().map_err(|error| match error {
        InvalidPortRange::Reversed { start, end } => {
            format!("the range runs backwards: did you mean {end}-{start}?")
        }
        InvalidPortRange::Unreadable(_) if !text.is_empty() && text.bytes().all(is_range_like) => {
            "ports go from 1 to 65535, and ranges are written like 7000-7010".to_owned()
        }
        InvalidPortRange::Zero => "ports go from 1 to 65535".to_owned(),
        other => other.to_string(),
    })
}

fn is_range_like(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'-'
}

/// A policy in half a line.
pub(crate) fn policy(policy: &Policy) -> String {
    let Policy { source, destination, protocol, ports } = policy;
    format!("{} -> {}, {protocol} {ports}", shown(source.as_str()), shown(destination.as_str()))
}

/// A name from outside, which may not move the cursor of the terminal it is shown on.
pub(crate) fn shown(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

/// How long something took: `42 ms`, `3.2 s`.
pub(crate) fn took(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// How long something lasts: `12 s`, `5 min`, `2 h`.
pub(crate) fn long(seconds: f64) -> String {
    match seconds.max(0.0) {
        seconds @ ..60.0 => format!("{:.0} s", seconds.floor()),
        seconds @ ..3600.0 => format!("{:.0} min", (seconds / 60.0).floor()),
        seconds => format!("{:.0} h", (seconds / 3600.0).floor()),
    }
}

/// When something was: `now`, `12 s ago`, `5 min ago`, `2 h ago`.
pub(crate) fn ago(seconds: f64) -> String {
    match seconds {
        ..1.0 => "now".to_owned(),
        _ => format!("{} ago", long(seconds)),
    }
}

/// The first few of `names`, and how many of `count` these leave out.
pub(crate) fn few(names: &[impl AsRef<str>], count: usize) -> String {
    let named: Vec<String> = names.iter().take(NAMED).map(|name| shown(name.as_ref())).collect();
    match count.saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// `1 cell`, `3 cells`.
pub(crate) fn cells(count: usize) -> String {
    if count == 1 { "1 cell".to_owned() } else { format!("{count} cells") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_cannot_be_are_refused_with_advice() {
        let refusal = |text| ports(text).unwrap_err();
        assert_eq!(refusal("0"), "ports go from 1 to 65535");
        assert_eq!(refusal("9-7"), "the range runs backwards: did you mean 7-9?");
        let advice = "ports go from 1 to 65535, and ranges are written like 7000-7010";
        assert_eq!(refusal("70000"), advice);
        assert_eq!(refusal("1-2-3"), advice);
        let other = "\"http\" is not a port or a range of ports such as 8080 or 7000-7010";
        assert_eq!(refusal("http"), other);
        assert_eq!(ports("7000-7010").unwrap().to_string(), "7000-7010");
    }

    #[test]
    fn of_many_a_few_are_named() {
        let four = ["a", "b\u{1b}", "c", "d"];
        assert_eq!(few(&four, 5), "a, b\u{fffd}, c and 2 more");
        assert_eq!(few(&four[..2], 2), "a, b\u{fffd}");
        assert_eq!(few(&four[..0], 0), "");
    }

    #[test]
    fn names_do_not_move_the_cursor() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn what_was_is_told_in_the_largest_unit_that_fits() {
        let times = [0.0, 59.9, 60.0, 3599.0, 7300.0].map(ago);
        assert_eq!(times, ["now", "59 s ago", "1 min ago", "59 min ago", "2 h ago"]);
    }

    #[test]
    fn times_are_short() {
        assert_eq!(took(Duration::from_millis(42)), "42 ms");
        assert_eq!(took(Duration::from_millis(3249)), "3.2 s");
    }
}
