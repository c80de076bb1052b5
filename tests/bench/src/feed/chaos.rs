//! Two servers on one database are restarted one after the other, and then the database, while somebody
//! changes policies twenty times a second.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use policy::Policy;
use serde::Serialize;
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{field::Field, ledger::Delays, watch::Watch, writer::Writer};
use crate::{client::Door, outcome::rounded, process::Process, subject::Subject};

/// Between two changes.
const BETWEEN_CHANGES: Duration = Duration::from_millis(50);

/// Between two restarts, so that each is met by agents that are back.
const CALM: Duration = Duration::from_secs(5);

/// The database must be back within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Chaos {
    pub seconds: f64,
    pub delays: Delays,
    /// Agents whose policies were not the servers' at the end.
    pub differing: usize,
    /// Questions of agents, and changes, that came to nothing and were asked again.
    pub failed_questions: u64,
    pub failed_changes: u64,
    /// The most connections opened within a second, on the whole machine.
    pub peak_connections_per_second: u64,
    /// The busiest second of the machine's processors.
    pub peak_busy_percent: f64,
}

/// Runs it. `field` has agents that follow both servers; `postmaster` is the file in which the database
/// keeps the number of its first process. Something else starts the database again.
pub(super) async fn run(
    [first, second]: [Subject; 2],
    field: &mut Field,
    postmaster: &Path,
) -> Result<Chaos> {
    let doors = vec![first.external.clone(), second.external.clone()];
    let began = Instant::now();
    field.ledger.begin();
    let watch = Watch::start();
    let (calm, until) = oneshot::channel();
    let restarts = async {
        let servers = restart_all([first, second], postmaster).await;
        // The other end is there until it is told.
        let _ = calm.send(());
        servers
    };
    let (servers, written) = tokio::join!(restarts, write_until(until, doors, field));
    let servers = servers?;
    let (policies, failed_changes) = written?;
    field.settle().await;
    let seconds = began.elapsed().as_secs_f64();
    let peaks = watch.peaks().await?;
    let (delays, failed_questions) = (field.ledger.delays(), field.ledger.failures());
    let differing = field.differing(&[&servers[0], &servers[1]]).await?;
    let mut tidying = Writer::new(vec![servers[0].external.clone()]);
    tidying.delete(&policies).await?;
    Ok(Chaos {
        seconds: rounded(seconds),
        delays,
        differing,
        failed_questions,
        failed_changes,
        peak_connections_per_second: peaks.connections,
        peak_busy_percent: peaks.busy_percent,
    })
}

async fn restart_all([first, second]: [Subject; 2], postmaster: &Path) -> Result<[Subject; 2]> {
    sleep(CALM).await;
    let first = first.restart().await?;
    sleep(CALM).await;
    let second = second.restart().await?;
    sleep(CALM).await;
    restart_database(postmaster).await?;
    sleep(CALM).await;
    Ok([first, second])
}

async fn restart_database(postmaster: &Path) -> Result<()> {
    let before = first_process(postmaster)?;
    before.signal("INT")?;
    let again = async {
        while !first_process(postmaster).is_ok_and(|now| now.0 != before.0) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.context("the database does not come back")
}

/// The process that started all others of the database.
pub(super) fn first_process(postmaster: &Path) -> Result<Process> {
    let text = fs::read_to_string(postmaster).context("looking for the database")?;
    let number = text.lines().next().context("the database does not say which process it is")?;
    Ok(Process(number.trim().parse()?))
}

/// Creates one policy after the other; returns them, and how often that failed at first.
async fn write_until(
    mut calm: oneshot::Receiver<()>,
    doors: Vec<Door>,
    field: &mut Field,
) -> Result<(Vec<Policy>, u64)> {
    let (mut writer, mut written) = (Writer::new(doors), Vec::new());
    let mut ticks = interval(BETWEEN_CHANGES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while calm.try_recv().is_err() {
        ticks.tick().await;
        let change = field.places.narrow(written.len());
        let answered = writer.write(&change.policy, true).await?;
        field.expect(&answered, &change);
        written.push(change.policy);
    }
    Ok((written, writer.failures))
}
