//! Query strings that select policies (spec/policy-server.md §2.7): the first occurrence of a
//! parameter counts, split at commas, not trimmed.

use std::{borrow::Cow, collections::BTreeSet};

use policy::AppGuid;
use policy_store::Filter;

use crate::snapshot::Subject;

/// The first parameter `name`, `None` if there is none.
pub(crate) fn first<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The apps parameter `name` lists, `None` if it is absent. An empty name is no app's, so `id=`
/// selects nothing rather than everything.
pub(crate) fn apps(query: Option<&str>, name: &str) -> Option<BTreeSet<AppGuid>> {
    let list = first(query, name)?;
    Some(list.split(',').filter_map(|guid| guid.parse().ok()).collect())
}

/// What the external list is asked for.
pub(crate) fn filter(query: Option<&str>) -> Filter {
    if let Some(apps) = apps(query, "id") {
        return Filter::Touching(apps);
    }
    match (apps(query, "source_id"), apps(query, "dest_id")) {
        (None, None) => Filter::All,
        (sources, destinations) => Filter::Between { sources, destinations },
    }
}

/// What the internal list is asked for.
pub(crate) fn subject(query: Option<&str>) -> Subject {
    apps(query, "id").map_or(Subject::Everything, Subject::Apps)
}

/// Whether `query` asks for just `subject`, app by app in its order, as a cell does that asks again. Costs
/// less than to read it.
pub(crate) fn repeats(query: Option<&str>, subject: &Subject) -> bool {
    match (first(query, "id"), subject) {
        (None, Subject::Everything) => true,
        (Some(list), Subject::Apps(apps)) => list.split(',').eq(apps.iter().map(AppGuid::as_str)),
        (None, Subject::Apps(_)) | (Some(_), Subject::Everything) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(names: &[&str]) -> BTreeSet<AppGuid> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_occurrence_counts_split_at_commas_not_trimmed() {
        assert_eq!(apps(Some("id=a,b&id=c"), "id"), Some(set(&["a", "b"])));
        assert_eq!(apps(Some("x=1&id=%2Ca%2Cb+,c%20"), "id"), Some(set(&["a", "b ", "c "])));
        assert_eq!(apps(Some("id="), "id"), Some(set(&[])));
        assert_eq!(apps(Some("ID=a"), "id"), None);
        assert_eq!(apps(None, "id"), None);
    }

    #[test]
    fn id_wins_over_the_ends() {
        assert_eq!(filter(Some("source_id=a&id=b")), Filter::Touching(set(&["b"])));
        assert_eq!(
            filter(Some("dest_id=c&source_id=a,b")),
            Filter::Between { sources: Some(set(&["a", "b"])), destinations: Some(set(&["c"])) }
        );
        assert_eq!(filter(Some("limit=3")), Filter::All);
    }

    #[test]
    fn who_asks_again_asks_for_the_same() {
        let subject = Subject::Apps(set(&["a", "b"]));
        assert!(repeats(Some("id=a,b"), &subject) && repeats(Some("id=a%2Cb&id=c"), &subject));
        let others = [Some("id=a"), Some("id=a,b,c"), Some("id=b,a"), Some("id=a,B"), None];
        assert!(others.iter().all(|query| !repeats(*query, &subject)));
        assert!(repeats(None, &Subject::Everything) && !repeats(Some("id="), &Subject::Everything));
    }

    proptest! {
        #[test]
        fn what_repeats_a_question_asks_the_same(
            before in "(id=[abc,]{0,6})?", query in "(id=([abc,]|%2C){0,6})?",
        ) {
            let given = |text: &str| subject(Some(text).filter(|text| !text.is_empty()));
            let before = given(&before);
            let repeated = repeats(Some(&query).filter(|q| !q.is_empty()).map(String::as_str), &before);
            prop_assert!(!repeated || given(&query) == before);
        }

        #[test]
        fn any_query_is_some_filter(query in ".*") {
            let selects_all = filter(Some(&query)) == Filter::All;
            let names_one = ["id", "source_id", "dest_id"].iter().any(|n| apps(Some(&query), n).is_some());
            prop_assert_eq!(selects_all, !names_one);
        }
    }
}
