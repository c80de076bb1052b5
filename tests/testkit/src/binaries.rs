//! The programs under test, found beside the running one: cargo puts all of a build in one place.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The path of a program of this build.
pub fn path(name: &str) -> Result<PathBuf> {
    let me = env::current_exe().context("cannot find this program's own path")?;
    // A test binary lives one floor down, in `deps`.
    let home = me
        .ancestors()
        .skip(1)
        .find(|directory| !directory.ends_with("deps"))
        .context("this program has no directory")?;
    let path = home.join(name);
    ensure!(
        path.is_file(),
        "{} has not been built: scripts/test and scripts/demo do that first",
        path.display()
    );
    Ok(path)
}
