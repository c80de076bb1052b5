use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt, thread};

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

fn container(handle: &str, ip: [u8; 4]) -> Container {
    let metadata = json!({"policy_group_id": format!("app-of-{handle}"), "ports": "8080"});
    Container {
        handle: handle.to_owned(),
        ip: Ipv4Addr::from(ip),
        metadata: metadata.as_object().unwrap().clone(),
    }
}

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::at(dir.path().join("deep/store.json"));
    (dir, store)
}

fn store_holding(bytes: &[u8]) -> (TempDir, Store) {
    let (dir, store) = store();
    fs::create_dir_all(store.path().parent().unwrap()).unwrap();
    fs::write(store.path(), bytes).unwrap();
    (dir, store)
}

fn handles(store: &Store) -> Vec<String> {
    let contents = store.read().unwrap();
    contents.containers.into_iter().map(|c| c.handle).collect()
}

fn version(store: &Store) -> i64 {
    let path = file::beside(store.path(), "_version");
    fs::read_to_string(path).unwrap().parse().unwrap()
}

#[test]
fn no_file_and_an_empty_file_mean_no_containers_and_reading_creates_nothing() {
    let (dir, store) = store();
    assert_eq!(store.read().unwrap(), Contents::default());
    assert_eq!(store.remove("x").unwrap(), None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    for text in ["", " \n", "null", "{}"] {
        let (_dir, store) = store_holding(text.as_bytes());
        assert_eq!(store.read().unwrap(), Contents::default(), "{text:?}");
    }
}

#[test]
fn what_was_added_is_read_and_removed_once() {
    let (_dir, store) = store();
    let web = container("web", [10, 255, 30, 2]);
    store.add(&web).unwrap();
    store.add(&container("db", [10, 255, 30, 3])).unwrap();
    assert_eq!(handles(&store), ["db", "web"]);
    assert_eq!(web.policy_group_id(), Some("app-of-web"));
    assert_eq!(store.remove("web").unwrap(), Some(web));
    assert_eq!(store.remove("web").unwrap(), None);
    assert_eq!(handles(&store), ["db"]);
}

#[test]
fn the_file_is_the_one_go_programs_read() {
    let (_dir, store) = store();
    store.add(&container("web", [10, 255, 30, 2])).unwrap();
    assert_eq!(
        fs::read_to_string(store.path()).unwrap(),
        r#"{"web":{"handle":"web","ip":"10.255.30.2","metadata":{"policy_group_id":"app-of-web","ports":"8080"}}}"#
    );
}

#[test]
fn a_second_address_is_of_the_metadata_and_belongs_to_one_container_at_a_time() {
    let (_dir, store) = store();
    let dual = |handle, ip, ipv6: &str| {
        let mut container = container(handle, ip);
        container.metadata.insert(crate::IPV6.to_owned(), ipv6.into());
        container
    };
    store.add(&dual("web", [10, 255, 30, 2], "fd00:30::2")).unwrap();
    store.add(&dual("log", [10, 255, 30, 3], "fd00:30::3")).unwrap();
    store.add(&dual("db", [10, 255, 30, 4], "fd00:30:0::2")).unwrap();
    assert_eq!(handles(&store), ["db", "log"]);
    let read = store.read().unwrap();
    assert_eq!(read.containers[0].ipv6(), Some("fd00:30::2".parse().unwrap()));
    assert_eq!(dual("x", [10, 255, 30, 5], "10.255.30.5").ipv6(), None);
    assert_eq!(container("x", [10, 255, 30, 5]).ipv6(), None);
}

#[test]
fn files_are_for_the_owner_only_and_the_version_moves_with_every_write() {
    let (_dir, store) = store();
    store.add(&container("web", [10, 255, 30, 2])).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for suffix in ["", "_lock", "_version"] {
        assert_eq!(mode(file::beside(store.path(), suffix)), 0o600, "{suffix}");
    }
    assert_eq!(mode(store.path().parent().unwrap().into()), 0o700);

    let first = version(&store);
    store.remove("web").unwrap();
    let second = version(&store);
    assert!(second > first);
    store.remove("web").unwrap();
    assert_eq!(version(&store), second, "nothing was written");
}

#[test]
fn a_version_that_is_no_number_stops_nobody() {
    let (_dir, store) = store_holding(b"");
    fs::write(file::beside(store.path(), "_version"), "garbage").unwrap();
    store.add(&container("web", [10, 255, 30, 2])).unwrap();
    assert!(version(&store) > 1_000_000_000);
}

#[test]
fn one_unreadable_entry_hides_no_other_and_survives_their_writes() {
    let (_dir, store) = store_holding(
        br#"{"bad":{"handle":"bad","ip":"10.255.30","extra":1},"moved":{"handle":"x","ip":"10.255.30.9"},
            "good":{"handle":"good","ip":"10.255.30.2","metadata":null}}"#,
    );
    store.add(&container("web", [10, 255, 30, 3])).unwrap();
    assert_eq!(handles(&store), ["good", "web"]);
    let faults = store.read().unwrap().faults;
    assert_eq!(faults.len(), 2);
    assert!(faults[0].to_string().contains("\"bad\""), "{}", faults[0]);
    assert!(fs::read_to_string(store.path()).unwrap().contains("\"extra\":1"));

    assert_eq!(store.remove("bad").unwrap(), None);
    assert_eq!(store.read().unwrap().faults.len(), 1);
}

#[test]
fn an_address_belongs_to_the_container_that_came_last() {
    let (_dir, store) = store();
    store.add(&container("old", [10, 255, 30, 2])).unwrap();
    store.add(&container("new", [10, 255, 30, 2])).unwrap();
    assert_eq!(handles(&store), ["new"]);
}

#[test]
fn a_truncated_store_is_an_error_that_names_the_file_and_is_never_overwritten() {
    let whole = br#"{"web":{"handle":"web","ip":"10.255.30.2","metadata":{}}}"#;
    for length in 1..whole.len() {
        let (_dir, store) = store_holding(&whole[..length]);
        let error = store.read().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{length}: {error}");
        assert!(error.to_string().contains(&store.path().display().to_string()));
        store.add(&container("db", [10, 255, 30, 3])).unwrap_err();
        store.remove("web").unwrap_err();
        assert_eq!(fs::read(store.path()).unwrap(), &whole[..length]);
    }
}

#[test]
fn what_was_read_last_is_not_read_again_before_it_has_changed() {
    let (_dir, store) = store();
    let mut last = Reading::default();
    let mut count = || {
        let read = store.read_unless(&last)?;
        Ok::<_, StoreError>(read.map(|(contents, reading)| {
            last = reading;
            (contents.containers.len(), last.is_blank())
        }))
    };
    assert_eq!(count().unwrap(), Some((0, true)));
    assert_eq!(count().unwrap(), None, "there is still no file");
    store.add(&container("a", [10, 255, 0, 2])).unwrap();
    assert_eq!(count().unwrap(), Some((1, false)));
    assert_eq!(count().unwrap(), None);
    let whole = fs::read(store.path()).unwrap();
    fs::write(store.path(), &whole[1..]).unwrap();
    assert!(matches!(count(), Err(StoreError::Corrupt { .. })));
    fs::write(store.path(), &whole).unwrap();
    assert_eq!(count().unwrap(), None, "what was read last is true again");
    store.remove("a").unwrap();
    assert_eq!(count().unwrap(), Some((0, false)));
    fs::write(store.path(), " \n").unwrap();
    assert_eq!(count().unwrap(), Some((0, true)));
}

#[test]
fn rebuilding_keeps_the_corrupt_file_and_leaves_a_good_one_alone() {
    let (_dir, store) = store_holding(b"{\"web\":");
    assert!(store.rebuild(&[container("db", [10, 255, 30, 3])]).unwrap());
    assert_eq!(handles(&store), ["db"]);
    let aside = file::beside(store.path(), "_corrupt");
    assert_eq!(fs::read(aside).unwrap(), b"{\"web\":");
    assert!(!store.rebuild(&[]).unwrap());
    assert_eq!(handles(&store), ["db"]);
}

#[test]
fn a_blank_store_is_rebuilt_only_for_containers() {
    let (_dir, store) = store();
    assert!(!store.rebuild(&[]).unwrap());
    assert!(!store.path().exists());
    store.begin().unwrap();
    assert!(!store.is_blank() && handles(&store).is_empty());
    fs::remove_file(store.path()).unwrap();
    assert!(store.rebuild(&[container("db", [10, 255, 30, 3])]).unwrap());
    store.remove("db").unwrap();
    assert!(!store.rebuild(&[container("db", [10, 255, 30, 3])]).unwrap(), "its list is empty");
    fs::write(store.path(), "\n").unwrap();
    assert!(store.rebuild(&[container("db", [10, 255, 30, 3])]).unwrap());
}

#[test]
fn a_container_without_a_handle_is_refused() {
    let (_dir, store) = store();
    let error = store.add(&container("", [10, 255, 30, 2])).unwrap_err();
    assert!(matches!(error, StoreError::NoHandle));
}

/// The load test of the Go datastore (spec/cell.md §H.4).
#[test]
fn fifty_threads_adding_and_removing_250_containers_end_with_none() {
    let (_dir, store) = store();
    thread::scope(|scope| {
        for worker in 0..50u8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..5u8 {
                    let one = container(&format!("c-{worker}-{n}"), [10, 255, worker, n]);
                    store.add(&one).unwrap();
                    assert_eq!(store.remove(&one.handle).unwrap(), Some(one));
                }
            });
        }
    });
    assert_eq!(store.read().unwrap(), Contents::default());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".*", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_dir, store) = store_holding(&bytes);
        let _ = store.read();
    }

    #[test]
    fn any_json_in_the_file_is_read_or_refused(value in any_json()) {
        let (_dir, store) = store_holding(value.to_string().as_bytes());
        match store.read() {
            Ok(contents) => {
                let entries = value.as_object().map_or(0, Map::len);
                prop_assert_eq!(contents.containers.len() + contents.faults.len(), entries);
            }
            Err(error) => prop_assert!(!value.is_object() && !value.is_null(), "{}", error),
        }
    }

    #[test]
    fn what_was_written_is_read_back(handle in ".+", ip: [u8; 4], metadata in prop::collection::btree_map(".*", any_json(), 0..4)) {
        let (_dir, store) = store();
        let one = Container {
            handle,
            ip: ip.into(),
            metadata: metadata.into_iter().collect(),
        };
        store.add(&one).unwrap();
        prop_assert_eq!(store.read().unwrap().containers, [one]);
    }
}
