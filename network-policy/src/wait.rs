//! Asking until every cell concerned enforces a change.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use policy_client::external::ClientError;

use crate::receipts::{Receipt, Standing};

/// Cells answer within milliseconds, so the first looks are close together.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What lasts longer than this is explained, and as often as this is looked at for whether the
/// explanation still holds: it takes the long answer, with each cell's word.
const EXPLAINED: Duration = Duration::from_secs(2);

/// A server that limits how often one may ask takes a second to allow more.
const LIMITED_PAUSE: Duration = Duration::from_secs(1);

const TOO_MANY_REQUESTS: u16 = 429;

/// How the waiting ended, unless the server refused to say.
#[derive(Debug)]
pub(crate) struct Waited {
    /// What was seen last.
    pub(crate) last: Last,
    pub(crate) took: Duration,
}

#[derive(Debug)]
pub(crate) enum Last {
    /// Every cell concerned enforces it; there may be none.
    Confirmed(Vec<Receipt>),
    /// Time ran out, or there is no use in waiting on.
    Standing(Standing),
    /// Time ran out while the server did not answer.
    Silence(ClientError),
}

/// How much is wanted to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// How many cells are missing, and each cell's word when none is.
    Passing,
    /// Each cell's word, to explain why it takes so long.
    Explaining,
    /// Each cell's word, for the end.
    Last,
}

/// Asks until the change is in force or `timeout` is over; `seen` is told what every look has brought
/// after which it is waited on.
pub(crate) fn wait(
    timeout: Duration,
    mut ask: impl FnMut(Look) -> Result<Standing, ClientError>,
    mut seen: impl FnMut(Look, &Last),
) -> Result<Waited, ClientError> {
    let began = Instant::now();
    let (mut pause, mut explained) = (FIRST_PAUSE, EXPLAINED);
    loop {
        let look = match began.elapsed() {
            took if took >= timeout => Look::Last,
            took if took >= explained => {
                explained = took + EXPLAINED;
                Look::Explaining
            }
            _ => Look::Passing,
        };
        let last = match ask(look) {
            Ok(standing) if standing.is_settled() => {
                let last = Last::Confirmed(standing.into_receipts());
                return Ok(Waited { last, took: began.elapsed() });
            }
            Ok(standing) => Last::Standing(standing),
            // It took the change a moment ago, so it may be back in another.
            Err(error) if is_passing(&error) => Last::Silence(error),
            Err(error) => return Err(error),
        };
        let took = began.elapsed();
        let hopeless = matches!(last, Last::Standing(Standing::OtherLife));
        if hopeless || look == Look::Last {
            return Ok(Waited { last, took });
        }
        seen(look, &last);
        let now = if is_limited(&last) { LIMITED_PAUSE } else { pause };
        sleep(now.min(timeout.saturating_sub(took)));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether it was asked too often.
pub(crate) fn is_limited(last: &Last) -> bool {
    matches!(last, Last::Silence(ClientError::Refused { status: TOO_MANY_REQUESTS, .. }))
}

fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => *status >= 500 || *status == TOO_MANY_REQUESTS,
        ClientError::Json { .. } | ClientError::Nonsense { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use policy::{
        Version,
        wire::status::{CellStatus, Status},
    };

    use super::*;

    fn status(life: &str, enforced: &[Option<u64>]) -> Result<Status, ClientError> {
        let cells = enforced.iter().enumerate().map(|(index, enforced)| CellStatus {
            cell: format!("cell-{index}"),
            enforced: *enforced,
            wanted: 9,
            ..CellStatus::default()
        });
        let (life, complete) = (life.to_owned(), true);
        Ok(Status { life, revision: 9, complete, cells: cells.collect() })
    }

    fn refused(status: u16) -> Result<Status, ClientError> {
        let (request, reason) = ("GET /status".to_owned(), "no".to_owned());
        Err(ClientError::Refused { request, status, reason, request_id: None })
    }

    /// Waits while the server says these things one after the other, and then the last for ever.
    fn waited<const N: usize>(
        timeout: Duration,
        answers: [Result<Status, ClientError>; N],
    ) -> Result<Waited, ClientError> {
        let mut answers = VecDeque::from(answers);
        let change: Version = "life.7".parse().unwrap();
        let mut last = None;
        let ask = |look| {
            assert_ne!(last, Some(Look::Last), "the last look is the last");
            last = Some(look);
            let status = match answers.len() {
                1 => match answers.front().unwrap() {
                    Ok(status) => Ok(status.clone()),
                    Err(_) => refused(503),
                },
                _ => answers.pop_front().unwrap(),
            };
            status.map(|status| Standing::of(&change, 7, &status))
        };
        wait(timeout, ask, |_, _| {})
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn waiting_ends_when_the_last_cell_has_confirmed() {
        let answers =
            [status("life", &[None, Some(7)]), refused(503), status("life", &[Some(8), Some(7)])];
        let Waited { last, took } = waited(LONG, answers).unwrap();
        assert!(matches!(last, Last::Confirmed(receipts) if receipts.len() == 2));
        assert!(took >= FIRST_PAUSE && took < LONG);
    }

    #[test]
    fn who_asks_too_often_asks_again_a_little_later() {
        let Waited { last, took } =
            waited(LONG, [refused(429), status("life", &[Some(8)])]).unwrap();
        assert!(matches!(last, Last::Confirmed(_)));
        assert!(took >= LIMITED_PAUSE);
    }

    #[test]
    fn what_lasts_is_explained_and_what_ends_is_not() {
        let change: Version = "life.7".parse().unwrap();
        let ask = |_| status("life", &[None]).map(|status| Standing::of(&change, 7, &status));
        let began = Instant::now();
        let mut explained = vec![];
        let seen = |look, _: &Last| match look {
            Look::Passing => {}
            Look::Explaining => explained.push(began.elapsed()),
            Look::Last => panic!("the end has its own words"),
        };
        wait(EXPLAINED + LONGEST_PAUSE * 2, ask, seen).unwrap();
        assert!(matches!(explained[..], [after] if after >= EXPLAINED), "{explained:?}");
    }

    #[test]
    fn time_runs_out_over_a_straggler() {
        let waited = waited(SHORT, [status("life", &[Some(9), Some(6)])]).unwrap();
        let Last::Standing(Standing::Cells(receipts)) = waited.last else { panic!("{waited:?}") };
        assert_eq!(receipts.iter().map(|cell| cell.confirmed).collect::<Vec<_>>(), [true, false]);
        assert!(waited.took >= SHORT);
    }

    #[test]
    fn another_life_is_not_waited_for() {
        let waited = waited(LONG, [status("other", &[Some(9)])]).unwrap();
        assert!(matches!(waited.last, Last::Standing(Standing::OtherLife)));
    }

    #[test]
    fn a_server_that_falls_silent_is_waited_for_but_a_refusal_is_final() {
        let silent = waited(SHORT, [refused(503)]).unwrap();
        assert!(matches!(silent.last, Last::Silence(_)));
        let error = waited(LONG, [refused(403), status("life", &[])]).unwrap_err();
        assert!(matches!(error, ClientError::Refused { status: 403, .. }));
    }
}
