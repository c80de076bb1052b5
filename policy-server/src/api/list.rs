//! Lists of policies, written as they are sent: a list of 100,000 policies is 15 MB of JSON, and many
//! may ask for it at once (spec/policy-server.md §2.6, §5.1).

use std::{convert::Infallible, sync::Arc, vec};

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures::stream;
use policy::wire::line::Form;

use crate::snapshot::Entry;

/// A list is sent in pieces of about this many bytes.
const PIECE: usize = 64 << 10;

/// A list of those of `entries` that `form` can say, with their count before them if `counted`.
pub(crate) fn list(mut entries: Vec<Arc<Entry>>, form: Form, counted: bool) -> Response {
    entries.retain(|entry| form.says(&entry.tagged.policy));
    let head = if counted {
        format!("{{\"total_policies\":{},\"policies\":[", entries.len())
    } else {
        "{\"policies\":[".to_owned()
    };
    let mut pieces = Pieces { next: Some(head), entries: entries.into_iter(), form, first: true };
    let first = pieces.next().unwrap_or_default();
    let body = match pieces.next() {
        None => Body::from(first),
        Some(second) => {
            let all = [first, second].into_iter().chain(pieces);
            Body::from_stream(stream::iter(all.map(Ok::<_, Infallible>)))
        }
    };
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// What is still to be sent.
struct Pieces {
    /// What the next piece begins with; `None` after the end.
    next: Option<String>,
    entries: vec::IntoIter<Arc<Entry>>,
    form: Form,
    first: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = self.next.take()?;
        while piece.len() < PIECE {
            let Some(entry) = self.entries.next() else {
                piece.push_str("]}");
                return Some(piece.into());
            };
            if !std::mem::take(&mut self.first) {
                piece.push(',');
            }
            match self.form {
                Form::V1Tagged(_) => piece.push_str(entry.line.tagged()),
                Form::V1 => piece.extend(entry.line.untagged()),
                form => piece.push_str(&form.write(&entry.tagged)),
            }
        }
        self.next = Some(String::with_capacity(PIECE + 512));
        Some(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use policy::{Policy, Protocol, Revision, Tag, TagLength, TaggedPolicy, wire::v1};

    use super::*;

    fn entries(count: u32) -> Vec<Arc<Entry>> {
        (1..=count)
            .map(|number| {
                let tagged = TaggedPolicy {
                    policy: Policy {
                        source: format!("web-{number}").parse().unwrap(),
                        destination: "db".parse().unwrap(),
                        protocol: Protocol::Tcp,
                        ports: format!("{}-{}", number, number + number % 2).parse().unwrap(),
                    },
                    source_tag: Tag::new(number).unwrap(),
                    destination_tag: Tag::new(1).unwrap(),
                };
                Arc::new(Entry::new(tagged, Revision(1), TagLength::DEFAULT))
            })
            .collect()
    }

    async fn text(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_list_is_the_same_in_one_piece_and_in_many() {
        for count in [0, 1, 2, 5000] {
            let entries = entries(count);
            let tagged: Vec<_> = entries.iter().map(|entry| entry.tagged.clone()).collect();
            let expected = v1::PolicyList::of_tagged(&tagged, TagLength::DEFAULT);
            let expected = gocompat::json::to_string(&expected);
            let sent = text(list(entries, Form::V1Tagged(TagLength::DEFAULT), true)).await;
            assert!(sent == expected, "{count} policies");
            let policies: Vec<_> = tagged.into_iter().map(|tagged| tagged.policy).collect();
            let expected = gocompat::json::to_string(&v1::PolicyList::of(&policies));
            let sent = text(list(self::entries(count), Form::V1, true)).await;
            assert!(sent == expected, "{count} policies without tags");
        }
    }

    #[tokio::test]
    async fn what_a_form_cannot_say_is_neither_sent_nor_counted() {
        let sent = text(list(entries(3), Form::V0, true)).await;
        assert_eq!(
            sent,
            r#"{"total_policies":1,"policies":[{"source":{"id":"web-2"},"destination":{"id":"db","protocol":"tcp","port":2}}]}"#
        );
        assert_eq!(text(list(entries(0), Form::V0, false)).await, r#"{"policies":[]}"#);
    }
}
