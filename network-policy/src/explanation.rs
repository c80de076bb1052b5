//! Whom a long wait is for, and why, in sentences.

use policy_client::external::ClientError;

use crate::{
    failure::in_short,
    reasons::{self, reason},
    receipts::{Receipt, Standing},
    wait::{Last, is_limited},
    words,
};

/// Somebody who says a thing again only when it has become another.
#[derive(Debug, Default)]
pub(crate) struct Explanation {
    said: Option<String>,
}

impl Explanation {
    /// What there is to say of what was seen, unless it was the last that was said.
    pub(crate) fn news(&mut self, seen: &Last) -> Option<&str> {
        let text = of(seen)?;
        if self.said.as_ref() == Some(&text) {
            return None;
        }
        Some(self.said.insert(text))
    }
}

fn of(seen: &Last) -> Option<String> {
    match seen {
        Last::Standing(standing) => of_standing(standing),
        // Asking less often is between the two of them.
        Last::Silence(_) if is_limited(seen) => None,
        Last::Silence(error) => Some(of_silence(error)),
        Last::Confirmed(_) => None,
    }
}

fn of_standing(standing: &Standing) -> Option<String> {
    match standing {
        Standing::Cells(cells) | Standing::Incomplete(cells)
            if cells.iter().any(|cell| !cell.confirmed) =>
        {
            Some(of_cells(cells))
        }
        Standing::Incomplete(_) => {
            Some("Waiting until the server has heard of every cell.".to_owned())
        }
        Standing::ServerBehind => Some("Waiting for the server to take the change in.".to_owned()),
        // A count knows no reasons, and the other two are no more waited for.
        Standing::Counted(_) | Standing::Cells(_) | Standing::OtherLife => None,
    }
}

fn of_cells(cells: &[Receipt]) -> String {
    let missing: Vec<&Receipt> = cells.iter().filter(|cell| !cell.confirmed).collect();
    let (count, all) = (missing.len(), words::cells(cells.len()));
    let why = reasons::lines(missing.into_iter().map(|cell| {
        let why = reason(cell.error.as_deref(), cell.silent_seconds);
        (cell.cell.as_str(), why.unwrap_or_else(|| "no reason given".to_owned()))
    }));
    format!("Waiting for {count} of {all}:\n  {}", why.join("\n  "))
}

fn of_silence(error: &ClientError) -> String {
    format!("Waiting for the server to answer again: {}", in_short(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, confirmed: bool, error: Option<&str>, silent_seconds: f64) -> Receipt {
        let (cell, error) = (name.to_owned(), error.map(str::to_owned));
        Receipt { cell, enforced: None, confirmed, error, silent_seconds }
    }

    fn cells(cells: &[Receipt]) -> Last {
        Last::Standing(Standing::Cells(cells.to_vec()))
    }

    fn refused(status: u16) -> Last {
        let (request, reason) = ("GET /status".to_owned(), "away".to_owned());
        Last::Silence(ClientError::Refused { request, status, reason, request_id: None })
    }

    #[test]
    fn those_who_are_missing_are_named_with_their_reasons() {
        let seen = cells(&[
            cell("cell-1", true, Some("not asked for"), 0.0),
            cell("cell-2", false, Some("no such table"), 0.0),
            cell("cell-3", false, None, 0.0),
            cell("cell-4", false, None, 432.1),
        ]);
        insta::assert_snapshot!(of(&seen).unwrap(), @r"
        Waiting for 3 of 4 cells:
          cell-2: no such table
          cell-3: no reason given
          cell-4: not heard of for more than a minute
        ");
    }

    #[test]
    fn what_is_no_cells_fault_is_said_as_well() {
        let incomplete = Standing::Incomplete(vec![cell("cell-1", true, None, 0.0)]);
        let texts = [
            of(&Last::Standing(incomplete)),
            of(&Last::Standing(Standing::ServerBehind)),
            of(&refused(503)),
        ];
        insta::assert_snapshot!(texts.map(Option::unwrap).join("\n"), @r"
        Waiting until the server has heard of every cell.
        Waiting for the server to take the change in.
        Waiting for the server to answer again: the server refused with status 503: away
        ");
        assert_eq!(of(&refused(429)), None);
    }

    #[test]
    fn a_thing_is_said_again_when_it_has_changed() {
        let seen = |error| cells(&[cell("cell-1", false, error, 0.0)]);
        let mut explanation = Explanation::default();
        assert!(explanation.news(&seen(None)).unwrap().ends_with("cell-1: no reason given"));
        assert_eq!(explanation.news(&seen(None)), None);
        assert!(explanation.news(&seen(Some("x"))).unwrap().ends_with("cell-1: x"));
        assert!(explanation.news(&refused(503)).is_some());
        assert!(explanation.news(&seen(Some("x"))).is_some());
    }
}
