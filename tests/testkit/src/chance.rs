//! Random choices that can be made again: whoever fails prints the seed, and `NETMAN_SEED` brings the
//! same choices back.

use std::env;

use anyhow::{Context, Result};

/// A source of random choices.
pub struct Chance {
    seed: u64,
    choices: fastrand::Rng,
}

impl Chance {
    /// From `NETMAN_SEED`, or a seed of its own; says which.
    pub fn of_this_run(story: &str) -> Result<Self> {
        let seed = match env::var_os("NETMAN_SEED") {
            Some(seed) => seed
                .to_str()
                .and_then(|seed| seed.parse().ok())
                .context("NETMAN_SEED is no number")?,
            None => fastrand::u64(..),
        };
        eprintln!("{story}: NETMAN_SEED={seed}");
        Ok(Self { seed, choices: fastrand::Rng::with_seed(seed) })
    }

    /// What brings the same choices back.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Another source, whose choices are its own and told by the same seed.
    pub fn fork(&mut self) -> Self {
        Self { seed: self.seed, choices: self.choices.fork() }
    }

    /// A number from 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.choices.u64(..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let choices = || {
            let mut chance = Chance { seed: 7, choices: fastrand::Rng::with_seed(7) };
            let mut other = chance.fork();
            (0..20).map(|_| (chance.below(100), other.below(100))).collect::<Vec<_>>()
        };
        assert_eq!(choices(), choices());
        assert!(choices().iter().any(|(one, other)| one != other));
    }
}
