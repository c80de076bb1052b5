//! The request headers of a poll that may be held (design §2.3), and the answer's.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use policy::{Version, wire::delta};
use uuid::Uuid;

use crate::{
    receipts::{Backend, GroupsWord, Word},
    snapshot::Subject,
};

const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// RFC 3229: which ways to tell a change the caller understands, which one was taken, and since when.
const A_IM: HeaderName = HeaderName::from_static("a-im");
const IM: HeaderName = HeaderName::from_static("im");
const DELTA_BASE: HeaderName = HeaderName::from_static("delta-base");
const CELL: HeaderName = HeaderName::from_static("netman-cell");
/// A name that its agent took when it was started.
const AGENT: HeaderName = HeaderName::from_static("netman-agent");
/// How many questions it had asked before.
const QUESTION: HeaderName = HeaderName::from_static("netman-question");
const BACKEND: HeaderName = HeaderName::from_static("netman-backend");
const ERROR: HeaderName = HeaderName::from_static("netman-error");
/// How many milliseconds the caller may spread its next question over, as many are told the same.
const REST: HeaderName = HeaderName::from_static("netman-rest");

/// Why what the caller says is no receipt.
const REFUSED: HeaderName = HeaderName::from_static("netman-receipt-refused");

/// That nobody has read security groups from Cloud Controller yet, so that an empty list means nothing.
const GROUPS_UNKNOWN: HeaderName = HeaderName::from_static("netman-groups-unknown");

/// That it has the version it names, and only watches what that would deny.
const WATCHES: HeaderName = HeaderName::from_static("netman-watches-only");

/// What a header cannot carry, and the sign that says so.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The longest a poll is held, in seconds.
const LONGEST_WAIT: u64 = 60;

/// Longer names are refused a receipt: they are no host names, and receipts are kept.
const LONGEST_CELL: usize = 255;

/// What is kept of a cell's error, in bytes as sent.
const LONGEST_ERROR: usize = 512;

/// Whose poll it is.
pub(crate) fn cell(headers: &HeaderMap) -> Option<&str> {
    let cell = headers.get(CELL)?.to_str().ok()?;
    (1..=LONGEST_CELL).contains(&cell.len()).then_some(cell)
}

/// What the poll says of its cell, which asks about `subject` and has `known` of it.
pub(crate) fn word(headers: &HeaderMap, subject: &Arc<Subject>, known: Option<&Version>) -> Word {
    Word {
        subject: subject.clone(),
        enforced: enforced(headers, known),
        backend: headers.get(BACKEND).and_then(|name| Backend::named(name.to_str().ok()?)),
        error: error(headers),
        agent: agent(headers),
    }
}

/// The same of one that asks about the security groups of `spaces`.
pub(crate) fn groups_word(
    headers: &HeaderMap,
    spaces: &Arc<BTreeSet<String>>,
    known: Option<&Version>,
) -> GroupsWord {
    let (enforced, error) = (enforced(headers, known), error(headers));
    GroupsWord { spaces: spaces.clone(), enforced, error }
}

/// Which agent speaks for the cell. What is no UUID is no name.
pub(crate) fn agent(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(AGENT)?.to_str().ok()?.parse().ok()
}

/// Which of its questions this is. What is no number is none.
pub(crate) fn question(headers: &HeaderMap) -> Option<u64> {
    headers.get(QUESTION)?.to_str().ok()?.parse().ok()
}

/// What the cell enforces, that has `known`.
fn enforced(headers: &HeaderMap, known: Option<&Version>) -> Option<Version> {
    known.filter(|_| !headers.contains_key(WATCHES)).cloned()
}

/// What troubles the cell: percent-encoded, since a header has no room for every character.
fn error(headers: &HeaderMap) -> Option<String> {
    let sent = headers.get(ERROR)?.as_bytes();
    let sent = &sent[..sent.len().min(LONGEST_ERROR)];
    let error = String::from_utf8_lossy(&Cow::from(percent_decode(sent))).into_owned();
    Some(error).filter(|error| !error.trim().is_empty())
}

/// The version the caller has. What cannot be read, and `*`, mean none: the answer is then complete.
pub(crate) fn known(headers: &HeaderMap) -> Option<Version> {
    let list = headers.get(IF_NONE_MATCH)?.to_str().ok()?;
    list.split(',').find_map(|etag| Version::from_etag(etag).ok())
}

/// How long the caller would like to wait, within what we offer: `wait=N` among the preferences of
/// RFC 7240. What cannot be read is no preference.
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let seconds = preferences.flat_map(|value| value.split(',')).find_map(wait_seconds)?;
    Some(Duration::from_secs(seconds.clamp(1, LONGEST_WAIT)))
}

/// Whether the caller would rather be told what has changed than everything.
pub(crate) fn takes_changes(headers: &HeaderMap) -> bool {
    let values = headers.get_all(A_IM).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|way| {
        let mut parts = way.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(delta::MANIPULATION));
        // `q=0` says that it is not wanted; how much it is wanted otherwise makes no difference.
        let unwanted = |parameter: &str| {
            let weight = parameter.strip_prefix("q=").and_then(|weight| weight.parse().ok());
            weight.is_some_and(|weight: f32| weight <= 0.0)
        };
        named && !parts.any(unwanted)
    })
}

/// Parameters after a semicolon say nothing about `wait`.
fn wait_seconds(preference: &str) -> Option<u64> {
    let (name, value) = preference.split(';').next()?.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    let value = value.trim().trim_matches('"');
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // A number too long to read is a long wait, too.
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

/// The answer, if the caller has that version.
pub(crate) fn not_modified() -> Response {
    StatusCode::NOT_MODIFIED.into_response()
}

/// `response` as one that tells what has changed since `base`.
pub(crate) fn change(mut response: Response, base: &Version) -> Response {
    *response.status_mut() = StatusCode::IM_USED;
    let headers = response.headers_mut();
    headers.insert(IM, HeaderValue::from_static(delta::MANIPULATION));
    headers.insert(DELTA_BASE, etag(base));
    response
}

/// `response` to one of many who are told at once.
pub(crate) fn resting(mut response: Response, rest: Duration) -> Response {
    let millis = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
    response.headers_mut().insert(REST, millis.into());
    response
}

/// `response` to one whose receipt is refused, and `why`.
pub(crate) fn refusing(mut response: Response, why: &str) -> Response {
    let encoded = utf8_percent_encode(why, ESCAPED).to_string();
    let why = HeaderValue::from_str(&encoded).expect("what no header can hold is encoded");
    response.headers_mut().insert(REFUSED, why);
    response
}

/// `response` with a list of security groups nobody has told of.
pub(crate) fn of_unknown_groups(mut response: Response) -> Response {
    response.headers_mut().insert(GROUPS_UNKNOWN, HeaderValue::from_static("true"));
    response
}

/// `response` with its version, and the preference it followed.
pub(crate) fn stamped(
    mut response: Response,
    version: &Version,
    waited: Option<Duration>,
) -> Response {
    let headers = response.headers_mut();
    headers.insert(ETAG, etag(version));
    // Of no use to anybody else, and of none to the caller in a moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(waited) = waited {
        let applied = HeaderValue::from_str(&format!("wait={}", waited.as_secs()));
        headers.insert(PREFERENCE_APPLIED, applied.expect("a number has no special characters"));
    }
    response
}

fn etag(version: &Version) -> HeaderValue {
    HeaderValue::from_str(&version.to_etag()).expect("a life has no special characters")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waits(values: &[&str]) -> Option<u64> {
        let headers = values.iter().map(|value| (PREFER, value.parse().unwrap())).collect();
        wait(&headers).map(|wait| wait.as_secs())
    }

    fn knows(value: &str) -> Option<String> {
        let headers = [(IF_NONE_MATCH, value.parse().unwrap())].into_iter().collect();
        known(&headers).map(|version| version.to_string())
    }

    #[test]
    fn the_wait_is_found_among_preferences_and_clamped() {
        assert_eq!(waits(&["wait=55"]), Some(55));
        assert_eq!(waits(&["respond-async, Wait = 10; foo=bar"]), Some(10));
        assert_eq!(waits(&["return=minimal", "wait=\"7\""]), Some(7));
        assert_eq!((waits(&["wait=0"]), waits(&["wait=61"])), (Some(1), Some(60)));
        assert_eq!(waits(&["wait=99999999999999999999999"]), Some(60));
        for none in ["", "wait", "wait=", "wait=-1", "wait=1.5", "await=3", "respond-async"] {
            assert_eq!(waits(&[none]), None, "{none:?}");
        }
    }

    #[test]
    fn changes_are_told_to_those_who_say_that_they_take_them() {
        let takes = |values: &[&str]| {
            takes_changes(&values.iter().map(|value| (A_IM, value.parse().unwrap())).collect())
        };
        assert!(takes(&["netman-changes"]) && takes(&["vcdiff, Netman-Changes ; q=0.5"]));
        assert!(takes(&["vcdiff", "feed,netman-changes;q=1"]));
        for not in ["", "netman", "netman-changes-2", "vcdiff;netman-changes", "netman-changes;q=0"]
        {
            assert!(!takes(&[not]), "{not:?}");
        }
        assert!(!takes(&[]));
    }

    #[test]
    fn the_known_version_is_the_first_that_is_one() {
        assert_eq!(knows("\"a-b.7\"").as_deref(), Some("a-b.7"));
        assert_eq!(knows("\"other\", W/\"a.8\"").as_deref(), Some("a.8"));
        for none in ["*", "", "a.7", "\"a\"", "\"a.-7\""] {
            assert_eq!(knows(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_cell_tells_its_back_end_and_what_troubles_it() {
        let word = |backend: &str, error: &str| {
            let values = [(BACKEND, backend), (ERROR, error)];
            let headers =
                values.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect();
            let Word { backend, error, .. } = word(&headers, &Arc::new(Subject::Everything), None);
            (backend.map(Backend::as_str), error)
        };
        let told = word("nftables", "iptables%3A%20no%20such%20table%20%E2%80%9Cx%E2%80%9D");
        assert_eq!(
            told,
            (Some("nftables"), Some("iptables: no such table \u{201c}x\u{201d}".into()))
        );
        assert_eq!(word("ebpf", ""), (None, None));
        assert_eq!(word("iptables", &"x".repeat(600)).1.unwrap().len(), LONGEST_ERROR);
        assert_eq!(word("", "100%").1.as_deref(), Some("100%"), "what is not encoded stays");
    }

    proptest! {
        #[test]
        fn any_headers_are_understood_or_ignored(bytes: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers: HeaderMap = [PREFER, IF_NONE_MATCH, A_IM, CELL, AGENT, QUESTION, BACKEND, ERROR]
                    .into_iter()
                    .map(|name| (name, value.clone()))
                    .collect();
                if let Some(wait) = wait(&headers) {
                    prop_assert!((1..=60).contains(&wait.as_secs()));
                }
                if let Some(known) = known(&headers) {
                    let stamped = stamped(not_modified(), &known, None);
                    prop_assert!(stamped.headers().contains_key(ETAG));
                }
                let _ = (cell(&headers), question(&headers), takes_changes(&headers));
                let word = word(&headers, &Arc::new(Subject::Everything), None);
                prop_assert!(word.error.is_none_or(|error| error.len() <= 3 * LONGEST_ERROR));
            }
        }
    }
}
