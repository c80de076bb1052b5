//! Asking how far a change has got.

use std::collections::BTreeSet;

use policy::{AppGuid, Policy, Version};
use policy_client::external::{Client, ClientError, Filter};

use crate::{
    receipts::{Standing, Tally, find},
    wait::Look,
};

/// Somebody who asks about one policy.
pub(crate) struct Watch<'a> {
    client: &'a Client,
    change: &'a Version,
    policy: &'a Policy,
    apps: BTreeSet<AppGuid>,
    /// Whether the server tells of the policy as a whole. Of one that was removed none does, nor does
    /// an older server of any.
    has_count: bool,
}

impl<'a> Watch<'a> {
    /// For a `change` that made `policy`.
    pub(crate) fn added(client: &'a Client, change: &'a Version, policy: &'a Policy) -> Self {
        Self { has_count: true, ..Self::removed(client, change, policy) }
    }

    /// For a `change` that took `policy` away.
    pub(crate) fn removed(client: &'a Client, change: &'a Version, policy: &'a Policy) -> Self {
        let apps = [policy.source.clone(), policy.destination.clone()].into();
        Self { client, change, policy, apps, has_count: false }
    }

    /// How far it has got. The list of all cells is long where there are many, so in passing it is asked
    /// for only if nobody is missing.
    pub(crate) fn look(&mut self, look: Look) -> Result<Standing, ClientError> {
        let mut needed = self.change.revision.0;
        if self.has_count {
            match self.client.policies_status(&between(self.policy)) {
                Ok(status) => {
                    let change = self.change;
                    if let Some(useless) = Standing::useless(change, &status.life, status.revision)
                    {
                        return Ok(useless);
                    }
                    if let Some(status) = find(self.policy, &status) {
                        let tally = Tally::of(status);
                        if tally.missing() > 0 && look == Look::Passing {
                            return Ok(Standing::Counted(tally));
                        }
                        // It may have been there before.
                        needed = needed.min(status.revision);
                    }
                }
                Err(ClientError::Refused { status: 404 | 405, .. }) => self.has_count = false,
                Err(error) => return Err(error),
            }
        }
        let status = self.client.status(Some(&self.apps))?;
        Ok(Standing::of(self.change, needed, &status))
    }
}

/// Whether the server tells the caller how far a change of `policy` has got; a server that tells nobody
/// is no reason against it. Returns whether there is such a policy, as far as it tells.
pub(crate) fn may_ask(client: &Client, policy: &Policy) -> Result<bool, ClientError> {
    match client.policies_status(&between(policy)) {
        Ok(status) => Ok(find(policy, &status).is_some()),
        Err(ClientError::Refused { status: 404 | 405, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The policies from the source of `policy` to its destination.
pub(crate) fn between(policy: &Policy) -> Filter {
    let Policy { source, destination, .. } = policy;
    Filter::Between {
        sources: Some([source.clone()].into()),
        destinations: Some([destination.clone()].into()),
    }
}
