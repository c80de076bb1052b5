use std::collections::HashMap;

use policy::{AppGuid, Policy};

/// Whether any app that `policies` name would be the source of more than `most` policies, counting
/// those that exist and those that are to be. What exists and is asked for again counts twice
/// (spec/policy-server.md §3.6).
pub(super) fn exceeds<'a>(
    policies: &'a [Policy],
    existing: impl Iterator<Item = &'a Policy>,
    most: usize,
) -> bool {
    let mut counts: HashMap<&AppGuid, usize> = HashMap::new();
    for policy in existing.chain(policies) {
        *counts.entry(&policy.source).or_default() += 1;
    }
    let mut named = policies.iter().flat_map(super::ends);
    named.any(|app| counts.get(app).is_some_and(|count| *count > most))
}

#[cfg(test)]
mod tests {
    use policy::Protocol;
    use proptest::prelude::*;

    use super::*;

    fn policy(source: &str, destination: &str, port: u16) -> Policy {
        Policy {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: port.to_string().parse().unwrap(),
        }
    }

    #[test]
    fn what_exists_and_what_is_to_be_count_together() {
        let wanted = [policy("web", "db", 2)];
        let of_web = [policy("web", "db", 1)];
        assert!(!exceeds(&wanted, of_web.iter(), 2));
        assert!(exceeds(&wanted, of_web.iter(), 1));
        assert!(!exceeds(&wanted, [].iter(), 1));
        assert!(exceeds(&wanted, [].iter(), 0));
    }

    #[test]
    fn what_exists_counts_again() {
        let wanted = [policy("web", "db", 1)];
        assert!(exceeds(&wanted, wanted.iter(), 1));
    }

    #[test]
    fn others_do_not_count_nor_do_destinations() {
        let wanted = [policy("web", "db", 1)];
        let of_others = [policy("other", "web", 1), policy("other", "db", 1)];
        assert!(!exceeds(&wanted, of_others.iter(), 1));
        let to_one = [policy("a", "db", 1), policy("b", "db", 1)];
        assert!(!exceeds(&to_one, [].iter(), 1));
    }

    /// Administrators may have given it more than others may.
    #[test]
    fn a_destination_that_has_too_many_of_its_own_is_refused_too() {
        let wanted = [policy("web", "db", 1)];
        let of_db = [policy("db", "x", 1), policy("db", "x", 2)];
        assert!(exceeds(&wanted, of_db.iter(), 1));
    }

    proptest! {
        #[test]
        fn each_count_is_within_the_quota_or_it_is_exceeded(
            wanted in prop::collection::vec(("[ab]", "[abc]", 1u16..4), 1..6),
            existing in prop::collection::vec(("[abc]", "[abc]", 1u16..4), 0..6),
            most in 0usize..6,
        ) {
            let made = |list: &[(String, String, u16)]| -> Vec<_> {
                list.iter().map(|(source, to, port)| policy(source, to, *port)).collect()
            };
            let (wanted, existing) = (made(&wanted), made(&existing));
            let of = |app: &AppGuid| {
                existing.iter().chain(&wanted).filter(|policy| policy.source == *app).count()
            };
            let expected = wanted
                .iter()
                .any(|policy| of(&policy.source) > most || of(&policy.destination) > most);
            prop_assert_eq!(exceeds(&wanted, existing.iter(), most), expected);
        }
    }
}
