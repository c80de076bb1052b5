use policy::{Policy, Protocol, Revision, Tag, TagLength, TaggedPolicy};
use proptest::prelude::*;

use super::*;
use crate::cloud_controller::fake::Directory;

const APPS: [(&str, &str); 4] = [("web", "s-1"), ("db", "s-1"), ("cache", "s-2"), ("mail", "s-3")];

fn directory() -> Directory {
    Directory::new(&APPS, &[("alice", &["s-1", "s-2"]), ("bob", &["s-3"])])
}

fn apps(directory: Arc<Directory>, settings: Settings) -> Apps {
    Apps::new(directory, settings)
}

fn policy(source: &str, destination: &str) -> Policy {
    Policy {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: "80".parse().unwrap(),
    }
}

fn entry(source: &str, destination: &str) -> Arc<Entry> {
    let tagged = TaggedPolicy {
        policy: policy(source, destination),
        source_tag: Tag::new(1).unwrap(),
        destination_tag: Tag::new(2).unwrap(),
    };
    Arc::new(Entry::new(tagged, Revision(1), TagLength::DEFAULT))
}

/// Whether `user` may change a policy between each pair.
async fn may(user: &str, policies: &[(&str, &str)]) -> bool {
    let policies: Vec<_> = policies.iter().map(|(from, to)| policy(from, to)).collect();
    let apps = apps(Arc::new(directory()), Settings::default());
    apps.may_change(UserGuid::new(user).as_ref(), &policies).await.unwrap()
}

#[tokio::test]
async fn a_developer_of_every_space_may_and_of_some_may_not() {
    assert!(may("alice", &[("web", "db")]).await);
    assert!(may("alice", &[("web", "cache"), ("db", "db")]).await);
    assert!(!may("alice", &[("web", "mail")]).await);
    assert!(!may("alice", &[("mail", "web")]).await);
    assert!(!may("alice", &[("web", "db"), ("mail", "mail")]).await);
    assert!(may("bob", &[("mail", "mail")]).await);
    assert!(!may("carol", &[("web", "db")]).await);
    assert!(!may("", &[("web", "db")]).await, "without a name one is nobody");
}

#[tokio::test]
async fn each_space_is_asked_about_once() {
    let directory = Arc::new(directory());
    let apps = apps(directory.clone(), Settings::default());
    let policies = [policy("web", "db"), policy("db", "web"), policy("cache", "web")];
    assert!(apps.may_change(UserGuid::new("alice").as_ref(), &policies).await.unwrap());
    assert_eq!(directory.asked(), ["apps cache,db,web", "is alice in s-1", "is alice in s-2"]);
}

#[tokio::test]
async fn an_app_nobody_knows_passes_unless_it_shall_not() {
    let user = UserGuid::new("alice");
    for (unknown_apps, passes) in [(UnknownApps::Pass, true), (UnknownApps::Refuse, false)] {
        let settings = Settings { unknown_apps, ..Settings::default() };
        let apps = apps(Arc::new(directory()), settings);
        for unknown in [policy("web", "gone"), policy("gone", "gone"), policy("a,b", "web")] {
            let may = apps.may_change(user.as_ref(), std::slice::from_ref(&unknown)).await;
            assert_eq!(may.unwrap(), passes, "{unknown}");
        }
        assert!(apps.may_change(user.as_ref(), &[policy("web", "db")]).await.unwrap());
    }
}

#[tokio::test]
async fn spaces_of_apps_nobody_asked_for_count_too() {
    let uninvited = vec![("mail".to_owned(), "s-3".to_owned())];
    let directory = Arc::new(Directory { uninvited, ..directory() });
    let apps = apps(directory, Settings::default());
    let policies = [policy("web", "db")];
    assert!(!apps.may_change(UserGuid::new("alice").as_ref(), &policies).await.unwrap());
}

#[tokio::test]
async fn an_app_in_no_space_is_a_failure_and_not_a_pass() {
    let uninvited = vec![("web".to_owned(), String::new())];
    let directory = Arc::new(Directory { uninvited, ..Directory::default() });
    let apps = apps(directory, Settings::default());
    let policies = [policy("web", "web")];
    let outcome = apps.may_change(UserGuid::new("alice").as_ref(), &policies).await;
    assert!(matches!(outcome, Err(AppsError::NoSpace(_))));
}

#[tokio::test]
async fn without_an_answer_nothing_is_decided() {
    let directory = Arc::new(Directory { fails: true, ..directory() });
    let apps = apps(directory, Settings::default());
    let user = UserGuid::new("alice");
    assert!(apps.may_change(user.as_ref(), &[policy("web", "db")]).await.is_err());
    assert!(apps.visible(user.as_ref(), vec![entry("web", "db")]).await.is_err());
}

async fn seen(user: &str, policies: &[(&str, &str)]) -> Vec<String> {
    let entries = policies.iter().map(|(from, to)| entry(from, to)).collect();
    let apps = apps(Arc::new(directory()), Settings::default());
    let visible = apps.visible(UserGuid::new(user).as_ref(), entries).await.unwrap();
    let ends = |entry: &Arc<Entry>| {
        format!("{} {}", entry.tagged.policy.source, entry.tagged.policy.destination)
    };
    visible.iter().map(ends).collect()
}

#[tokio::test]
async fn policies_are_seen_whose_both_ends_are_ones_own() {
    let all = [("web", "db"), ("web", "cache"), ("web", "mail"), ("mail", "mail"), ("web", "gone")];
    assert_eq!(seen("alice", &all).await, ["web db", "web cache"]);
    assert_eq!(seen("bob", &all).await, ["mail mail"]);
    assert!(seen("carol", &all).await.is_empty());
    assert!(seen("", &all).await.is_empty());
}

#[tokio::test]
async fn without_policies_only_spaces_are_asked_for() {
    let directory = Arc::new(directory());
    let apps = apps(directory.clone(), Settings::default());
    assert!(apps.visible(UserGuid::new("alice").as_ref(), Vec::new()).await.unwrap().is_empty());
    assert_eq!(directory.asked(), ["spaces of alice"]);
}

#[tokio::test]
async fn a_long_list_is_asked_about_in_chunks() {
    let directory = Arc::new(directory());
    let chunk_size = NonZeroUsize::new(2).unwrap();
    let apps = apps(directory.clone(), Settings { chunk_size, ..Settings::default() });
    let entries = vec![entry("web", "db"), entry("cache", "mail"), entry("web", "gone")];
    assert_eq!(apps.visible(UserGuid::new("alice").as_ref(), entries).await.unwrap().len(), 1);
    assert_eq!(
        directory.asked(),
        ["apps cache,db", "apps gone,mail", "apps web", "spaces of alice"]
    );
}

proptest! {
    /// Whoever may change a policy between known apps may see it, and the other way round.
    #[test]
    fn guard_and_filter_agree(
        user in "alice|bob|carol",
        from in "web|db|cache|mail",
        to in "web|db|cache|mail",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let sees = !seen(&user, &[(&from, &to)]).await.is_empty();
            assert_eq!(may(&user, &[(&from, &to)]).await, sees);
        });
    }
}
