use std::{fs::File, io, path::PathBuf, time::Duration};

use super::KernelError;

/// How long other writers of rules may hold the lock file. Nobody should for longer than one change.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file whose lock the programs of a cell hold while they write rules (spec/cell.md §C.7), if there
/// is one. It is created when missing and never truncated.
#[derive(Debug, Default)]
pub(super) struct LockFile(pub Option<PathBuf>);

impl LockFile {
    /// Waits until nobody else holds it; held until what is returned is dropped.
    pub fn take(&self) -> Result<Option<File>, KernelError> {
        let Some(path) = &self.0 else { return Ok(None) };
        let locked = || -> io::Result<File> {
            let file = files::open_to_lock(path)?;
            files::lock(&file, PATIENCE)?;
            Ok(file)
        };
        let failed = |source| KernelError::Lock { path: path.display().to_string(), source };
        locked().map(Some).map_err(failed)
    }
}
