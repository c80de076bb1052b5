use crate::host::{Host, HostError};

/// What has been done so far, as the steps that take it back; they run backwards when this is
/// dropped, unless all of it is to be kept.
///
/// A step is put on the stack *before* what it takes back is begun, since that may fail half-way; so
/// every step must be content to find nothing.
pub(crate) struct Undo<'h> {
    host: &'h dyn Host,
    steps: Vec<Step<'h>>,
}

struct Step<'h> {
    what: &'static str,
    run: Run<'h>,
}

type Run<'h> = Box<dyn FnOnce(&dyn Host) -> Result<(), HostError> + 'h>;

impl<'h> Undo<'h> {
    /// Nothing to take back yet.
    pub fn new(host: &'h dyn Host) -> Self {
        Self { host, steps: Vec::new() }
    }

    /// From here on, failing means `run`; `what` says so in the log.
    pub fn or(
        &mut self,
        what: &'static str,
        run: impl FnOnce(&dyn Host) -> Result<(), HostError> + 'h,
    ) {
        self.steps.push(Step { what, run: Box::new(run) });
    }

    /// All is well: nothing is taken back.
    pub fn keep(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(Step { what, run }) = self.steps.pop() {
            if let Err(error) = run(self.host) {
                let error = crate::error_chain(&error);
                tracing::warn!("After a failure, {what} failed too: {error}");
            }
        }
    }
}
