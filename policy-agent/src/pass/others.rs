//! What of others' hands is seen in a pass, beside what they did to rules of ours.

use netfilter::{Dialect, Drift, Firewall, KernelError};
use service::log::chain;

use super::Enforcer;
use crate::bypass::{self, Links, Notice, Stranger};

impl Enforcer {
    /// Whether the networker's rules are whole, and none of anybody else's goes before them.
    pub(super) fn look_at_what_others_wrote(&mut self, firewall: &Firewall) {
        let Some(observed) = firewall.known() else { return };
        self.unguarded = self.guards.missing(self.files.handles(), observed);
        if firewall.dialect() != Dialect::Nft {
            let (wholly, partly): (Vec<_>, Vec<_>) = bypass::found(observed, &Links::of_host())
                .into_iter()
                .partition(|one| one.is_whole);
            self.bypassed = Notice::first_of(&wholly);
            self.bypassed_in_part = Notice::first_of(&partly);
        }
    }

    /// Takes out of our own table what is nobody's there, and says what that was. What cannot be taken out is
    /// told, and holds nothing else up.
    pub(super) fn expel_strangers(
        &mut self,
        firewall: &mut Firewall,
    ) -> Result<Vec<Drift>, KernelError> {
        if firewall.dialect() != Dialect::Nft {
            return Ok(Vec::new());
        }
        self.bypassed = Vec::new();
        let mut failure = None;
        // Whoever put it there may have taken it out, too, in between.
        for _ in 0..2 {
            let strangers = bypass::strangers(firewall.observed()?);
            match firewall.commit(&bypass::removal(&strangers)) {
                Ok(()) => return Ok(strangers.iter().map(Stranger::drift).collect()),
                Err(error) => failure = Some((strangers, chain(&error))),
            }
        }
        let (strangers, why) = failure.unwrap_or_default();
        self.bypassed = strangers.iter().map(|one| one.kept(&why)).collect();
        Ok(Vec::new())
    }
}
