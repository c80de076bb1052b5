use std::collections::btree_map::Entry;

use crate::KernelError;

/// A name under which two different things are wanted. Names are cut where a kernel takes no longer ones,
/// so two that are different may become one; and who may pass would be decided by rules that are about
/// somebody else. So a ruleset with such a name is not written at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clash(Option<String>);

impl Clash {
    /// Says `thing` under `name`, unless something else is said there already.
    pub fn say<K: Ord, V: PartialEq>(&mut self, name: &str, place: Entry<'_, K, V>, thing: V) {
        match place {
            Entry::Vacant(place) => drop(place.insert(thing)),
            Entry::Occupied(there) if *there.get() == thing => {}
            Entry::Occupied(_) => self.note(name),
        }
    }

    pub fn note(&mut self, name: &str) {
        self.0.get_or_insert_with(|| name.to_owned());
    }

    pub fn or(self, other: Self) -> Self {
        Self(self.0.or(other.0))
    }

    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// # Errors
    /// If there is one.
    pub fn check(&self) -> Result<(), KernelError> {
        self.0.clone().map_or(Ok(()), |name| Err(KernelError::Clash(name)))
    }
}
