use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use imbl::OrdSet;

use super::{Kernel, KernelError, lock_file::LockFile, program::run};
use crate::{
    Dialect, Observed, Plan, SetKind, SetStep, Step, Table, UnreadableRuleset,
    netlink::{Change, Netlink},
    observed::ObservedSet,
    render::nft,
    set::packed,
};

/// How often the ruleset is read again because somebody else wrote meanwhile.
const ATTEMPTS: u32 = 5;

/// From how many elements on a program is as fast as our own socket.
const MANY: usize = 1000;

/// One for each table of nftables of our own.
const TABLES: [Table; 2] = [Table::Filter, Table::Bridge];

/// The kernel through our own table of nftables: the program `nft` for chains and rules, a socket for
/// the elements of sets.
#[derive(Debug)]
pub struct Nftables {
    netlink: Netlink,
    lock_file: LockFile,
    /// Rules the kernel lists in other words than ours, as it lists them: what we wrote.
    aliases: HashMap<String, String>,
    /// What was written last, until the kernel is read again: who writes once and ends need not.
    written: Option<Written>,
}

/// The rules a commit has put at the end of each chain.
#[derive(Debug)]
struct Written {
    /// The ruleset's number after it. Under any other, what is there may be somebody else's.
    generation: u32,
    rules: BTreeMap<(Table, String), Vec<String>>,
}

/// What the kernel lists, but for the elements of sets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    /// Each rule with its number.
    chains: BTreeMap<(Table, String), Vec<(String, String)>>,
    /// `None` if a set is of no kind of ours.
    sets: BTreeMap<String, Option<SetKind>>,
    asleep: BTreeSet<Table>,
}

impl Nftables {
    /// In the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel does not let us open a socket to it.
    pub fn open() -> Result<Self, KernelError> {
        let netlink = Netlink::open().map_err(KernelError::Netlink)?;
        Ok(Self { netlink, lock_file: LockFile(None), aliases: HashMap::new(), written: None })
    }

    /// Holding this file's lock while writing, as the other programs of the cell do, and while reading
    /// what they disturb.
    #[must_use]
    pub fn with_lock_file(mut self, path: Option<PathBuf>) -> Self {
        self.lock_file = LockFile(path);
        self
    }

    fn number(&mut self) -> Result<u32, KernelError> {
        self.netlink.generation().map_err(KernelError::Netlink)
    }

    /// Everything but the elements of sets.
    fn list(&self) -> Result<Listed, KernelError> {
        let mut all = Listed::default();
        for table in TABLES {
            let words = ["-a", "-s", "-t", "list", "table"].into_iter();
            let words: Vec<_> = words.chain(nft::table(table).split(' ')).collect();
            match run("nft", &words, "") {
                Ok(output) => {
                    let listing = String::from_utf8_lossy(&output.stdout);
                    all.read(table, &listing)?;
                }
                // Nobody has written anything there yet.
                Err(KernelError::Failed { stderr, .. }) if stderr.contains("No such file") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// In our own words where we wrote it.
    fn wording<'a>(&'a self, listed: &'a str) -> &'a str {
        self.aliases.get(listed).map_or(listed, String::as_str)
    }

    /// Reads again as long as somebody writes meanwhile, some times.
    fn look_undisturbed(&mut self) -> Result<(Observed, Listed), KernelError> {
        for _ in 0..ATTEMPTS {
            let before = self.number()?;
            let listed = self.list();
            let whole = listed.and_then(|all| Ok((self.elements_of(&all.sets)?, all)));
            if self.number()? == before {
                let (sets, listed) = whole?;
                return Ok((self.seen(before, &listed, sets), listed));
            }
        }
        Err(KernelError::Moved("the ruleset".into()))
    }

    /// What the kernel held while the ruleset had this number.
    fn seen(
        &mut self,
        number: u32,
        listed: &Listed,
        sets: BTreeMap<String, ObservedSet>,
    ) -> Observed {
        if let Some(written) = self.written.take()
            && written.generation == number
        {
            self.learn(listed, written);
        }
        let asleep = listed.asleep.clone();
        let mut observed = Observed { sets, asleep, ..Observed::default() };
        for ((table, name), rules) in &listed.chains {
            let rules = rules.iter().map(|(rule, _)| self.wording(rule).to_owned()).collect();
            observed.tables.entry(*table).or_default().insert(name.clone(), Arc::new(rules));
        }
        observed
    }

    fn elements_of(
        &mut self,
        sets: &BTreeMap<String, Option<SetKind>>,
    ) -> Result<BTreeMap<String, ObservedSet>, KernelError> {
        let of = |(name, kind): (&String, &Option<SetKind>)| {
            let kind = *kind;
            let elements = match kind {
                Some(kind) => {
                    let elements = self.netlink.elements(name, kind);
                    packed(elements.map_err(KernelError::Netlink)?)
                }
                None => OrdSet::new(),
            };
            Ok((name.clone(), ObservedSet { kind, elements }))
        };
        sets.iter().map(of).collect()
    }

    /// Whether the plan is about a few elements and nothing else.
    fn is_small(plan: &Plan) -> bool {
        let small = |step: &SetStep| match step {
            SetStep::Add(_, elements) | SetStep::Delete(_, elements) => {
                elements.iter().all(Netlink::knows)
            }
            _ => false,
        };
        let is_all = plan.tables.is_empty() && plan.wakes.is_empty();
        is_all && plan.len() <= MANY && plan.sets.iter().all(small)
    }

    fn change_elements(&mut self, plan: &Plan) -> Result<(), KernelError> {
        let changes = plan.sets.iter().filter_map(|step| match step {
            SetStep::Add(set, elements) => Some(Change { set, elements, add: true }),
            SetStep::Delete(set, elements) => Some(Change { set, elements, add: false }),
            _ => None,
        });
        self.netlink.change(&changes.collect::<Vec<_>>()).map_err(KernelError::Netlink)
    }

    /// The plan in nft's words, which name a rule to be deleted by its number. `listed` is what the
    /// kernel holds now, if that is known.
    fn script(&self, plan: &Plan, listed: Option<Listed>) -> Result<String, KernelError> {
        let deletes = |step: &Step| matches!(step, Step::Delete(..));
        if !plan.tables.values().flatten().any(deletes) {
            return Ok(plan.nft_text(|_, _, _| String::new()));
        }
        let Listed { chains, .. } = match listed {
            Some(listed) => listed,
            None => self.list()?,
        };
        let mut missing = None;
        let missed = std::cell::RefCell::new(&mut missing);
        let taken = std::cell::RefCell::new(Vec::new());
        let text = plan.nft_text(|table, chain, rule| {
            let rules = chains.get(&(table, chain.to_owned())).map_or(&[][..], Vec::as_slice);
            let mut same = rules.iter().filter(|(listed, _)| self.wording(listed) == rule);
            match same.find(|(_, number)| !taken.borrow().contains(number)) {
                Some((_, number)) => {
                    taken.borrow_mut().push(number.clone());
                    number.clone()
                }
                None => {
                    **missed.borrow_mut() = Some(chain.to_owned());
                    String::new()
                }
            }
        });
        match missing {
            Some(chain) => Err(KernelError::Moved(chain)),
            None => Ok(text),
        }
    }

    /// With the lock held.
    fn write(&mut self, plan: &Plan, listed: Option<Listed>) -> Result<(), KernelError> {
        plan.clash.check()?;
        if plan.is_empty() {
            return Ok(());
        }
        if Self::is_small(plan) {
            return self.change_elements(plan);
        }
        for table in &plan.wakes {
            run("nft", &["-f", "-"], &format!("add table {}\n", nft::table(*table)))?;
        }
        if plan.is_nothing_but_waking() {
            return Ok(());
        }
        let script = self.script(plan, listed)?;
        let before = self.number()?;
        run("nft", &["-f", "-"], &script)?;
        let generation = self.number()?;
        // If somebody else has written meanwhile, what is there may be theirs.
        let is_ours = generation == before.wrapping_add(1);
        self.written = is_ours.then(|| Written { generation, rules: appended(plan) });
        Ok(())
    }

    /// Takes the kernel's words for what has just been written as ours.
    fn learn(&mut self, listed: &Listed, written: Written) {
        for (chain, written) in written.rules {
            let Some(listed) = listed.chains.get(&chain) else { continue };
            // What was appended is at the end.
            let Some(first) = listed.len().checked_sub(written.len()) else { continue };
            for ((listed, _), written) in listed[first..].iter().zip(written) {
                if *listed != written && verdict(listed) == verdict(&written) {
                    self.aliases.insert(listed.clone(), written);
                }
            }
        }
    }
}

/// The rules a plan puts at the end of chains.
fn appended(plan: &Plan) -> BTreeMap<(Table, String), Vec<String>> {
    let mut appended: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (table, steps) in &plan.tables {
        for step in steps {
            if let Step::Append(chain, rule) = step {
                appended.entry((*table, chain.clone())).or_default().push(rule.clone());
            }
        }
    }
    appended
}

/// The last word of a rule but for its comment: in it, the kernel and we agree.
fn verdict(rule: &str) -> Option<&str> {
    let rule = rule.split(" comment \"").next()?;
    rule.rsplit(' ').next()
}

impl Kernel for Nftables {
    fn dialect(&self) -> Dialect {
        Dialect::Nft
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        match self.look_undisturbed() {
            // When many containers come and go, there may never be a pause unless one is made.
            Err(KernelError::Moved(_)) => {
                let _held = self.lock_file.take()?;
                self.look_undisturbed()
            }
            result => result,
        }
        .map(|(observed, _)| observed)
    }

    fn commit(&mut self, plan: &Plan) -> Result<(), KernelError> {
        if plan.is_empty() {
            return Ok(());
        }
        let _held = self.lock_file.take()?;
        self.write(plan, None)?;
        // Whoever commits may not look again for long.
        if let Some(written) = self.written.take_if(|written| !written.rules.is_empty()) {
            let listed = self.list()?;
            // What was listed after somebody else's change may be theirs.
            if self.number()? == written.generation {
                self.learn(&listed, written);
            }
        }
        Ok(())
    }

    fn change(&mut self, decide: &mut dyn FnMut(&Observed) -> Plan) -> Result<Plan, KernelError> {
        let _held = self.lock_file.take()?;
        let (observed, listed) = self.look_undisturbed()?;
        let plan = decide(&observed);
        self.write(&plan, Some(listed))?;
        Ok(plan)
    }

    fn generation(&mut self) -> Result<Option<u32>, KernelError> {
        self.number().map(Some)
    }

    fn generations_of(&self, plan: &Plan) -> u32 {
        let wakes = u32::try_from(plan.wakes.len()).expect("there are two tables");
        wakes + u32::from(!plan.is_nothing_but_waking())
    }
}

impl Listed {
    /// Reads what `nft -a -s -t list table` prints of `table`. Chains that are not called as ours are, are the
    /// operators' own, and so is what is neither a chain nor a set.
    fn read(&mut self, table: Table, listing: &str) -> Result<(), UnreadableRuleset> {
        let Self { chains, sets, asleep } = self;
        enum Inside {
            Nothing,
            Set(String, Vec<String>),
            Chain(Option<(Table, String)>),
        }
        let mut inside = Inside::Nothing;
        for (index, text) in listing.lines().enumerate() {
            let unreadable = || UnreadableRuleset { line: index + 1, text: text.to_owned() };
            let (line, number) = match text.trim().rsplit_once(" # handle ") {
                Some((line, number)) => (line, number),
                None => (text.trim(), ""),
            };
            let opens = |noun: &str| line.strip_prefix(noun)?.strip_suffix(" {").map(str::to_owned);
            match &mut inside {
                _ if line.is_empty() => {}
                Inside::Nothing if line.starts_with("table ") || line == "}" => {}
                Inside::Nothing if line.starts_with("comment ") => {}
                Inside::Nothing if line == "flags dormant" => _ = asleep.insert(table),
                Inside::Nothing => {
                    if let Some(name) = opens("set ").or_else(|| opens("map ")) {
                        inside = Inside::Set(name, Vec::new());
                    } else {
                        let ours = opens("chain ").as_deref().map(ours);
                        let ours =
                            ours.or_else(|| opens("").map(|_| None)).ok_or_else(unreadable)?;
                        chains.extend(ours.clone().map(|name| (name, Vec::new())));
                        inside = Inside::Chain(ours);
                    }
                }
                Inside::Set(name, declaration) if line == "}" => {
                    let kind = SetKind::listed(&declaration.join("; "));
                    sets.insert(std::mem::take(name), kind);
                    inside = Inside::Nothing;
                }
                Inside::Set(_, declaration) => declaration.push(line.to_owned()),
                Inside::Chain(_) if line == "}" => inside = Inside::Nothing,
                Inside::Chain(_) if line.starts_with("type ") && number.is_empty() => {}
                Inside::Chain(Some(name)) => {
                    let rule = (nft::spelled_out(line), number.to_owned());
                    chains.entry(name.clone()).or_default().push(rule);
                }
                Inside::Chain(None) => {}
            }
        }
        Ok(())
    }
}

/// The table and name of a chain of ours.
fn ours(name: &str) -> Option<(Table, String)> {
    let (table, name) = name.split_once('/')?;
    let table = Table::ALL.into_iter().find(|t| t.to_string() == table)?;
    Some((table, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Family;

    #[test]
    fn a_listing_is_read_chain_by_chain() {
        let listing = "\
table inet netman { # handle 1
	comment \"ours {\"
	flags dormant

	counter theirs { # handle 20
	}

	flowtable theirs { # handle 21
		hook ingress priority filter
		devices = { eth0, eth1 }
	}

	map filter/vpa--doors { # handle 15
		type ipv4_addr : verdict
	}

	set theirs { # handle 16
		type ifname
	}

	chain operator-input { # handle 1
		tcp dport 22 accept # handle 9
	}

	chain filter/FORWARD { # handle 2
		type filter hook forward priority filter; policy accept;
		jump filter/vpa--forward # handle 17
	}
}
";
        let mut read = Listed::default();
        read.read(Table::Filter, listing).unwrap();
        let Listed { chains, sets, asleep } = read;
        assert_eq!(asleep, [Table::Filter].into());
        let forward = vec![("jump filter/vpa--forward".to_owned(), "17".to_owned())];
        assert_eq!(chains, [((Table::Filter, "FORWARD".into()), forward)].into());
        let doors = ("filter/vpa--doors".into(), Some(SetKind::Doors(Family::V4)));
        assert_eq!(sets, [doors, ("theirs".into(), None)].into());
    }

    proptest! {
        #[test]
        fn any_listing_is_read_or_refused(text in "(table x \\{\n)?((\t(set|map|chain) [a-z/]* \\{| *\\}|.*)\n)*") {
            let _ = Listed::default().read(Table::Filter, &text);
        }
    }
}
