use std::{fmt, num::NonZeroU16, str::FromStr};

use thiserror::Error;

/// An inclusive range of ports, `1 ≤ start ≤ end ≤ 65535`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    start: NonZeroU16,
    end: NonZeroU16,
}

/// Why a pair of numbers, or a text, is no port range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPortRange {
    /// The range runs backwards.
    #[error("port range {start}-{end} runs backwards")]
    Reversed {
        /// First port as given.
        start: u16,
        /// Last port as given.
        end: u16,
    },
    /// Port 0 is not a port anything listens on.
    #[error("port 0 is not a port")]
    Zero,
    /// The text is neither `PORT` nor `START-END`.
    #[error("{0:?} is not a port or a range of ports such as 8080 or 7000-7010")]
    Unreadable(String),
}

impl PortRange {
    /// The range `start..=end`.
    pub fn new(start: u16, end: u16) -> Result<Self, InvalidPortRange> {
        let (Some(first), Some(last)) = (NonZeroU16::new(start), NonZeroU16::new(end)) else {
            return Err(InvalidPortRange::Zero);
        };
        if first > last {
            return Err(InvalidPortRange::Reversed { start, end });
        }
        Ok(Self { start: first, end: last })
    }

    /// The range that holds just `port`.
    pub fn single(port: NonZeroU16) -> Self {
        Self { start: port, end: port }
    }

    /// First port.
    pub fn start(self) -> u16 {
        self.start.get()
    }

    /// Last port, included.
    pub fn end(self) -> u16 {
        self.end.get()
    }

    /// The one port of a range that has just one: what API v0 can express.
    pub fn as_single(self) -> Option<u16> {
        (self.start == self.end).then(|| self.start.get())
    }

    /// Whether `port` lies inside.
    pub fn contains(self, port: u16) -> bool {
        (self.start()..=self.end()).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_single() {
            Some(port) => write!(f, "{port}"),
            None => write!(f, "{}-{}", self.start, self.end),
        }
    }
}

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let unreadable = || InvalidPortRange::Unreadable(text.to_owned());
        let (start, end) = text.split_once('-').unwrap_or((text, text));
        Self::new(start.parse().map_err(|_| unreadable())?, end.parse().map_err(|_| unreadable())?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_a_range_prints_it_can_parse(a in 1u16.., b in 1u16..) {
            let range = PortRange::new(a.min(b), a.max(b)).unwrap();
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            if let Ok(range) = text.parse::<PortRange>() {
                prop_assert!(range.start() <= range.end());
            }
        }
    }

    #[test]
    fn a_reversed_range_and_port_zero_are_refused() {
        assert_eq!(PortRange::new(10, 9), Err(InvalidPortRange::Reversed { start: 10, end: 9 }));
        assert_eq!(PortRange::new(0, 9), Err(InvalidPortRange::Zero));
    }
}
