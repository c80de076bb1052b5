//! Where in a tree one is.

use std::{fmt, ops::RangeInclusive};

use crate::Mark;

/// By so many bits of the mark each node leads to others. A packet passes by half of four rules there,
/// twice, where it would pass by half of sixteen once.
const BITS: u32 = 2;

/// How far nodes are from the root at most. nf_tables takes no chain that 16 others lead to one after the
/// other, of which an agent's need eight: those to the root, and those behind a leaf.
const DEEPEST: u32 = 6;

/// All bits of a digit.
const DIGIT: u16 = (1 << BITS) - 1;

/// The marks that begin with the same digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    digits: u16,
    depth: u32,
}

impl Node {
    pub const ROOT: Self = Self { digits: 0, depth: 0 };

    /// How many bits of a mark are not said.
    fn bits_below(self) -> u32 {
        u16::BITS - BITS * self.depth
    }

    pub fn marks(self) -> RangeInclusive<u16> {
        let below = self.bits_below();
        let rest = u16::try_from((1u32 << below) - 1).expect("there are 16 bits");
        let first = self.digits.checked_shl(below).unwrap_or(0);
        first..=first | rest
    }

    pub fn has_children(self) -> bool {
        self.depth < DEEPEST
    }

    pub fn children(self) -> impl Iterator<Item = Self> {
        let child =
            move |digit| Self { digits: self.digits << BITS | digit, depth: self.depth + 1 };
        (0..=DIGIT).map(child)
    }

    /// What tells it from the other children of its parent.
    pub fn last_digit(self) -> Mark {
        let [value, mask] = [self.digits & DIGIT, DIGIT];
        let in_place = |digit: u16| u32::from(digit) << self.bits_below();
        Mark { value: in_place(value), mask: in_place(mask) }
    }
}

/// Its digits; nothing for the root.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.depth)
            .rev()
            .try_for_each(|level| write!(f, "{}", self.digits >> (BITS * level) & DIGIT))
    }
}
