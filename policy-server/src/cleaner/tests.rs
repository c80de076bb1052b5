use policy::{Protocol, Revision, Tag, TagLength, TaggedPolicy};
use proptest::prelude::*;

use super::*;
use crate::cloud_controller::fake::Directory;

fn entry(source: &str, destination: &str) -> Arc<Entry> {
    let policy = Policy {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: "80".parse().unwrap(),
    };
    let (source_tag, destination_tag) = (Tag::new(1).unwrap(), Tag::new(2).unwrap());
    let tagged = TaggedPolicy { policy, source_tag, destination_tag };
    Arc::new(Entry::new(tagged, Revision(1), TagLength::DEFAULT))
}

fn entries(ends: &[(&str, &str)]) -> Vec<Arc<Entry>> {
    ends.iter().map(|(from, to)| entry(from, to)).collect()
}

/// What is stale where these apps are alive, and questions are about `chunk_size` of them.
async fn stale(
    alive: &[&str],
    policies: &[(&str, &str)],
    settings: Settings,
) -> Result<Vec<String>, CleanupError> {
    let alive: Vec<_> = alive.iter().map(|app| (*app, "space")).collect();
    let cleaner = Cleaner::new(Arc::new(Directory::new(&alive, &[])), settings);
    let stale = cleaner.stale(&entries(policies)).await?;
    Ok(stale.iter().map(|entry| ends(entry).map(ToString::to_string).join(" ")).collect())
}

fn chunks_of(size: usize) -> Settings {
    Settings { chunk_size: NonZeroUsize::new(size).unwrap(), ..Settings::default() }
}

#[tokio::test]
async fn one_end_that_is_gone_is_enough() {
    let policies = [("a", "b"), ("a", "gone"), ("gone", "b"), ("gone", "gone")];
    let stale = stale(&["a", "b"], &policies, chunks_of(100)).await.unwrap();
    assert_eq!(stale, ["a gone", "gone b", "gone gone"]);
}

#[tokio::test]
async fn nothing_is_stale_while_every_app_lives() {
    assert!(stale(&["a", "b"], &[("a", "b")], chunks_of(1)).await.unwrap().is_empty());
    assert!(stale(&[], &[], chunks_of(1)).await.unwrap().is_empty());
}

/// As the existing system tells it (§8).
#[tokio::test]
async fn a_policy_found_by_two_questions_is_told_twice() {
    let policies = [("gone-1", "gone-2"), ("a", "a")];
    let told = stale(&["a"], &policies, chunks_of(2)).await.unwrap();
    assert_eq!(told, ["gone-1 gone-2", "gone-1 gone-2"]);
    let told = stale(&["a"], &policies, chunks_of(3)).await.unwrap();
    assert_eq!(told, ["gone-1 gone-2"]);
}

#[tokio::test]
async fn a_handful_may_be_gone_and_many_may_not() {
    let names: Vec<_> = (0..=HANDFUL).map(|number| format!("app-{number}")).collect();
    let many: Vec<_> = names.iter().map(|app| (app.as_str(), app.as_str())).collect();
    let handful = &many[..HANDFUL];
    for size in [1, 4, 100] {
        assert_eq!(stale(&[], handful, chunks_of(size)).await.unwrap().len(), HANDFUL);
        let refused = stale(&[], &many, chunks_of(size)).await.unwrap_err();
        assert!(matches!(refused, CleanupError::AllGone(11)), "{refused}");
        let told = refused.to_string();
        assert!(told.starts_with("Cloud Controller knows none of the 11 apps"), "{told}");
        // One that lives makes the rest believable.
        assert_eq!(stale(&["app-0"], &many, chunks_of(size)).await.unwrap().len(), HANDFUL);
        let believing = Settings { all_gone: AllGone::Believed, ..chunks_of(size) };
        assert_eq!(stale(&[], &many, believing).await.unwrap().len(), HANDFUL + 1);
    }
}

#[tokio::test]
async fn an_app_that_nobody_asked_for_makes_nothing_believable() {
    let names: Vec<_> = (0..=HANDFUL).map(|number| format!("app-{number}")).collect();
    let many: Vec<_> = names.iter().map(|app| (app.as_str(), app.as_str())).collect();
    let uninvited = vec![("another".to_owned(), "space".to_owned())];
    let directory = Directory { uninvited, ..Directory::default() };
    let cleaner = Cleaner::new(Arc::new(directory), Settings::default());
    assert!(cleaner.stale(&entries(&many)).await.is_err());
}

#[tokio::test]
async fn without_an_answer_nothing_is_stale() {
    let directory = Directory { fails: true, ..Directory::default() };
    let cleaner = Cleaner::new(Arc::new(directory), chunks_of(1));
    let refused = cleaner.stale(&entries(&[("a", "b")])).await.unwrap_err();
    assert!(matches!(refused, CleanupError::CloudController(_)));
}

proptest! {
    /// However questions are divided, no policy between living apps is touched, and no other is left.
    #[test]
    fn exactly_the_stale_are_found(
        alive in prop::collection::hash_set("[a-f]", 0..6),
        policies in prop::collection::vec(("[a-h]", "[a-h]"), 0..12),
        size in 1usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let alive: Vec<_> = alive.iter().map(String::as_str).collect();
        let policies: Vec<_> =
            policies.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        let found = runtime.block_on(stale(&alive, &policies, chunks_of(size))).unwrap();
        let found: BTreeSet<_> = found.into_iter().collect();
        let lives = |app: &str| alive.contains(&app);
        let expected: BTreeSet<_> = policies
            .iter()
            .filter(|(from, to)| !lives(from) || !lives(to))
            .map(|(from, to)| format!("{from} {to}"))
            .collect();
        prop_assert_eq!(found, expected);
    }
}
