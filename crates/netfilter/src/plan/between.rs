use std::sync::Arc;

use imbl::{ordmap, ordset};

use super::{Plan, SetStep, element_steps, removal};
use crate::{Element, Observed, Rendered, Scope, SetKind};

impl Plan {
    /// The steps from a kernel that holds `before` to `wanted`: as [`Plan::new`], without looking at what
    /// they have in common, or at what else the kernel holds. `None` if they differ in more than the
    /// chains and sets of `scope`.
    pub fn between(before: &Rendered, wanted: &Rendered, scope: &Scope) -> Option<Self> {
        let same_words = before.dialect == wanted.dialect && before.hooks == wanted.hooks;
        let same_words = same_words && before.clash.is_none() && wanted.clash.is_none();
        let sets = same_words.then(|| set_steps(before, wanted))??;
        let mut new = Rendered { hooks: Vec::new(), ..Rendered::nothing(wanted.dialect) };
        let mut there = Observed::default();
        let mut stands = |(table, name): &(_, String), lines: &Arc<super::Lines>| {
            there.tables.entry(*table).or_default().insert(name.clone(), lines.rules.clone());
        };
        for difference in before.chains.diff(&wanted.chains) {
            match difference {
                ordmap::DiffItem::Add(name, lines) => {
                    new.chains.insert(name.clone(), lines.clone());
                }
                ordmap::DiffItem::Remove(name, lines) => stands(name, lines),
                ordmap::DiffItem::Update { old: (name, old), new: (_, lines) } => {
                    stands(name, old);
                    new.chains.insert(name.clone(), lines.clone());
                }
            }
        }
        Some(Self { sets, ..Self::new(&new, &there, scope) })
    }
}

/// `None` if one is of another kind than before: then what asks it must be written anew as well.
fn set_steps(before: &Rendered, wanted: &Rendered) -> Option<Vec<SetStep>> {
    let mut steps = Vec::new();
    for (name, (kind, elements)) in &wanted.sets {
        let Some((kind_before, there)) = before.sets.get(name) else {
            steps.push(SetStep::Create(name.clone(), *kind));
            steps.extend(element_steps(name, Vec::new(), elements.iter().cloned().collect()));
            continue;
        };
        if kind_before != kind {
            return None;
        }
        if matches!(kind, SetKind::Meter(..)) {
            continue;
        }
        let (mut gone, mut new): (Vec<Element>, Vec<Element>) = (Vec::new(), Vec::new());
        for difference in there.diff(elements) {
            match difference {
                ordset::DiffItem::Add(element) => new.push(element.clone()),
                ordset::DiffItem::Remove(element) => gone.push(element.clone()),
            }
        }
        steps.extend(element_steps(name, gone, new));
    }
    let stale = before.sets.iter().filter(|(name, _)| !wanted.sets.contains_key(*name));
    steps.extend(stale.flat_map(|(name, (kind, _))| removal(name, Some(*kind))));
    Some(steps)
}
