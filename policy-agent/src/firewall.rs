//! The one firewall of the cell. Policies and security groups both write it, each its own chains,
//! through one handle: what one has written is known to the other, and no reason to read it all again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use netfilter::{Dialect, Firewall, KernelError};

/// A handle on it; held for as long as a pass takes.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Firewall>>);

/// When somebody last saw all of it; another reading may hold news for everybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Shared {
    pub fn new(firewall: Firewall) -> Self {
        Self(Arc::new(Mutex::new(firewall)))
    }

    /// Waits for the other one's pass to end. One that has panicked leaves nothing worse than what a
    /// kill would: whatever it committed was whole.
    pub fn lock(&self) -> MutexGuard<'_, Firewall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is not as it was `seen`, as far as can be told without waiting for anybody and without
    /// reading it.
    pub fn has_moved_since(&self, seen: Seen) -> bool {
        // What cannot be asked now is asked by the next pass.
        let stands = self.unless_busy(|firewall| stands(firewall, seen).ok().flatten());
        stands == Some(false)
    }

    /// Whether the other one has read it anew since it was `seen`. A kernel that is read by every pass
    /// gives no such sign.
    pub fn was_read_since(&self, was: Seen) -> bool {
        let read = self.unless_busy(|firewall| {
            let can_tell = firewall.has_moved().ok().flatten().is_some();
            Some(can_tell && seen(firewall) != was)
        });
        read == Some(true)
    }

    fn unless_busy<T>(&self, ask: impl FnOnce(&mut Firewall) -> Option<T>) -> Option<T> {
        match self.0.try_lock() {
            Ok(mut firewall) => ask(&mut firewall),
            Err(TryLockError::Poisoned(poisoned)) => ask(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// How to see in the kernel what `/rules` shows, whose words are those of neither.
pub(crate) fn where_to_look(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Nft => {
            "# The rules that are wanted, sets and maps included. The kernel has them in nft's words:\n\
             #   nft list table inet netman\n"
        }
        Dialect::Iptables(_) | Dialect::DualIptables => {
            "# The rules that are wanted, sets and maps included. The kernel has sets and maps as trees of chains:\n\
             #   iptables-save | grep vpa--\n"
        }
    }
}

/// What has been seen of `firewall` by now.
pub(crate) fn seen(firewall: &Firewall) -> Seen {
    Seen(firewall.readings())
}

/// Whether it is as it was `seen`, but for what we ourselves have written since; `None` if the kernel
/// cannot tell.
pub(crate) fn stands(firewall: &mut Firewall, was: Seen) -> Result<Option<bool>, KernelError> {
    let moved = firewall.has_moved()?;
    Ok(moved.map(|moved| !moved && seen(firewall) == was))
}
