use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::{Kernel, KernelError, lock_file::LockFile, program::run};
use crate::{Dialect, Family, Observed, Plan};
use crate::{backend, netlink::Netlink};

/// Seconds to wait for the lock that iptables-legacy programs share.
const XTABLES_WAIT: &str = "10";

/// The exit code of "somebody else is writing, try again" (spec/cell.md §I.14).
pub(super) const RESOURCE_PROBLEM: i32 = 4;

/// How often that is tried again, a little later each time. Whoever has waited for the lock for all of its
/// time is not sent to wait again: why nothing is written is to be known first.
const ATTEMPTS: u32 = 5;

/// A refusal for another reason than the lock comes sooner than this.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Which of its two engines iptables drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// nf_tables, as a program installed in the last years does.
    Nft,
    /// The old one: every change, however small, replaces a whole table, and nothing tells whether
    /// somebody else has changed one.
    Legacy,
}

/// The kernel through `iptables-save` and one `iptables-restore --noflush` per commit.
#[derive(Debug)]
pub struct Iptables {
    family: Family,
    /// Whether IPv6 is written as well, in tables of its own.
    dual: bool,
    /// `None` for whichever is installed as plain `iptables`.
    engine: Option<Engine>,
    lock_file: LockFile,
    /// Tells the ruleset's number; `None` where there is none to tell.
    netlink: Option<Netlink>,
}

impl Default for Iptables {
    fn default() -> Self {
        Self::new()
    }
}

impl Iptables {
    /// Through the programs found on `PATH`, whichever engine they drive; the kernel is read whenever
    /// there is a question.
    pub fn new() -> Self {
        Self {
            family: Family::V4,
            dual: false,
            engine: None,
            lock_file: LockFile(None),
            netlink: None,
        }
    }

    /// The same, but reading the kernel only when it has changed, if the engine they drive can tell.
    ///
    /// # Errors
    /// If they cannot be run.
    pub fn installed() -> Result<Self, KernelError> {
        Ok(Self { engine: None, ..Self::driving(backend::engine()?) })
    }

    /// Through the programs for this engine.
    pub fn driving(engine: Engine) -> Self {
        // Without the number, the kernel is read instead.
        let netlink = (engine == Engine::Nft).then(Netlink::open).and_then(Result::ok);
        Self { engine: Some(engine), netlink, ..Self::new() }
    }

    /// About packets of this family. A cell with both has two of these.
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// About packets of both: one kernel, whose plans hold what is said to `iptables` and to `ip6tables`.
    #[must_use]
    pub fn dual(self) -> Self {
        Self { family: Family::V4, dual: true, ..self }
    }

    /// Holding this file's lock while committing, as the other programs of the cell do
    /// (spec/cell.md §C.7). The file is created when missing and never truncated.
    #[must_use]
    pub fn with_lock_file(mut self, path: Option<PathBuf>) -> Self {
        self.lock_file = LockFile(path);
        self
    }

    /// `iptables-save`, or its like for a family and the engine.
    fn program(&self, family: Family, verb: &str) -> String {
        let tables = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match self.engine {
            None => format!("{tables}-{verb}"),
            Some(Engine::Nft) => format!("{tables}-nft-{verb}"),
            Some(Engine::Legacy) => format!("{tables}-legacy-{verb}"),
        }
    }

    fn listing(&self, family: Family) -> Result<String, KernelError> {
        let output = run(&self.program(family, "save"), &[], "")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// With the lock held.
    fn carry_out(&self, plan: &Plan) -> Result<(), KernelError> {
        plan.clash.check()?;
        if plan.is_empty() {
            return Ok(());
        }
        if !self.dual {
            return self.restore(self.family, &plan.render());
        }
        for family in Family::ALL {
            let text = plan.restore_text(family);
            if !text.is_empty() {
                self.restore(family, &text)?;
            }
        }
        Ok(())
    }

    /// Has one program carry out its part, trying again while another writes.
    fn restore(&self, family: Family, text: &str) -> Result<(), KernelError> {
        let restore = self.program(family, "restore");
        let (mut attempt, began) = (1, Instant::now());
        loop {
            match run(&restore, &["--noflush", "--wait", XTABLES_WAIT], text) {
                Err(KernelError::Failed { status, .. })
                    if status.code() == Some(RESOURCE_PROBLEM)
                        && attempt < ATTEMPTS
                        && began.elapsed() < AT_ONCE =>
                {
                    thread::sleep(Duration::from_millis(20) * attempt);
                    attempt += 1;
                }
                result => return result.map(drop),
            }
        }
    }
}

impl Kernel for Iptables {
    fn dialect(&self) -> Dialect {
        if self.dual { Dialect::DualIptables } else { Dialect::Iptables(self.family) }
    }

    fn generation(&mut self) -> Result<Option<u32>, KernelError> {
        let number = self.netlink.as_mut().map(Netlink::generation).transpose();
        number.map_err(KernelError::Netlink)
    }

    fn generations_of(&self, plan: &Plan) -> u32 {
        u32::try_from(plan.tables.len()).unwrap_or(u32::MAX)
    }

    fn observe(&mut self) -> Result<Observed, KernelError> {
        let observed = Observed::parse(&self.listing(self.family)?)?;
        Ok(if self.dual { observed.and_ipv6(&self.listing(Family::V6)?)? } else { observed })
    }

    fn commit(&mut self, plan: &Plan) -> Result<(), KernelError> {
        if plan.is_empty() {
            return Ok(());
        }
        let _held = self.lock_file.take()?;
        self.carry_out(plan)
    }

    fn change(&mut self, decide: &mut dyn FnMut(&Observed) -> Plan) -> Result<Plan, KernelError> {
        let _held = self.lock_file.take()?;
        let plan = decide(&self.observe()?);
        self.carry_out(&plan)?;
        Ok(plan)
    }
}
