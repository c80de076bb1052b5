//! This cell's clock beside the server's. Certificates are judged by it, and logs are compared by it.

use std::time::Duration;

use policy_client::internal::Client;
use service::log::chain;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::Finding;
use crate::Config;

/// The header has whole seconds, and the answer takes its time.
const SLIGHT: Duration = Duration::from_secs(5);

/// From here on, certificates that were made just now are refused.
const TOO_MUCH: Duration = Duration::from_secs(300);

pub(super) async fn examine(config: &Config) -> Finding {
    let date = match Client::new(&config.server) {
        Ok(client) => client.date().await.map_err(|error| {
            let step = error.next_step(true).map(|step| format!("; {step}")).unwrap_or_default();
            chain(&error) + &step
        }),
        Err(error) => Err(chain(&error)),
    };
    match date {
        Ok(date) => judge(date.as_deref(), OffsetDateTime::now_utc()),
        Err(error) => Finding::broken("policy server", format!("it does not answer: {error}")),
    }
}

fn judge(date: Option<&str>, here: OffsetDateTime) -> Finding {
    let there = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    let Some(there) = there else {
        return Finding::unknown("clock", "the policy server answers, but does not say the time");
    };
    let apart = (here - there).unsigned_abs();
    let side = if here > there { "ahead of" } else { "behind" };
    let says = format!("{} s {side} the policy server", apart.as_secs());
    if apart > TOO_MUCH {
        Finding::broken("clock", format!("{says}; certificates may be refused: is time kept here?"))
    } else if apart > SLIGHT {
        Finding::warning("clock", format!("{says}; is time kept here?"))
    } else {
        Finding::fine("clock", "as the policy server's")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_may_be_off_by_what_a_header_cannot_tell() {
        let date = "Thu, 26 Nov 2026 02:49:10 GMT";
        let there = OffsetDateTime::parse(date, &Rfc2822).unwrap();
        let judged = |seconds| judge(Some(date), there + time::Duration::seconds(seconds));
        assert_eq!(judged(3).verdict, Verdict::Fine);
        assert_eq!(judged(-60).verdict, Verdict::Warning);
        assert!(judged(-60).says.starts_with("60 s behind"), "{:?}", judged(-60));
        assert_eq!(judged(400).verdict, Verdict::Broken);
        assert_eq!(judge(None, there).verdict, Verdict::Unknown);
        assert_eq!(judge(Some("today"), there).verdict, Verdict::Unknown);
    }
}
