//! A packet test: a world, what happens in it, and the report when it goes wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use std::{env, process, thread};

use anyhow::Result;

use crate::World;

/// Builds a world of two cells, tells the story in it, and panics with the story's error; the world's
/// report goes to standard error before. With `NETMAN_HOLD` set, a world in which something went
/// wrong is left standing until Ctrl-C, to be stepped into.
///
/// # Panics
/// If the world cannot be built, or the story fails.
pub fn story(name: &str, tell: impl FnOnce(&World) -> Result<()>) {
    let began = Instant::now();
    // Worlds of one process stand side by side; their namespaces need names of their own.
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let own = format!("w{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let world = match World::named(own).build() {
        Ok(world) => world,
        Err(error) => panic!("{name}: the world cannot be built: {error:#}"),
    };
    let built = began.elapsed();
    let outcome = catch_unwind(AssertUnwindSafe(|| tell(&world)));
    if let Ok(Ok(())) = outcome {
        // Seen with `--show-output`.
        eprintln!("{name}: {:.1?}, of which {built:.1?} for the world", began.elapsed());
        return;
    }
    eprintln!("{name}: what the world looked like\n{}", world.report());
    let hold = env::var_os("NETMAN_HOLD").is_some();
    if !hold {
        eprintln!("(to keep such a world standing: NETMAN_HOLD=1 scripts/test)");
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) if hold => eprintln!("{name}: {error:#}"),
        Ok(Err(error)) => panic!("{name}: {error:#}"),
        Err(panic) if !hold => std::panic::resume_unwind(panic),
        Err(_) => {}
    }
    eprintln!("{name}: left standing until Ctrl-C");
    loop {
        thread::park();
    }
}
