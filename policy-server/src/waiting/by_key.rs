use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// What there is under each of some keys.
pub(super) struct ByKey<K, V>(HashMap<K, Vec<V>>);

impl<K: Clone + Eq + Hash, V: Copy + PartialEq> ByKey<K, V> {
    pub(super) fn insert(&mut self, keys: &BTreeSet<K>, value: V) {
        for key in keys {
            self.0.entry(key.clone()).or_default().push(value);
        }
    }

    pub(super) fn remove(&mut self, keys: &BTreeSet<K>, value: &V) {
        for key in keys {
            let Some(values) = self.0.get_mut(key) else { continue };
            values.retain(|held| held != value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn any_of<'a>(
        &'a self,
        keys: impl IntoIterator<Item = &'a K>,
    ) -> impl Iterator<Item = V>
    where
        K: 'a,
    {
        keys.into_iter().filter_map(|key| self.0.get(key)).flatten().copied()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K, V> Default for ByKey<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}
