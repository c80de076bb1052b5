use std::{fs, os::unix::fs::PermissionsExt, thread};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn handle(text: &str) -> Handle {
    Handle::parse(text).unwrap()
}

fn pool(count: u16) -> (TempDir, PortPool) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("deep/state.json");
    (dir, PortPool { path, range: 61000..=61000 + count - 1 })
}

fn file(pool: &PortPool) -> String {
    fs::read_to_string(&pool.path).unwrap()
}

#[test]
fn the_lowest_free_ports_are_given_and_taken_back() {
    let (_dir, pool) = pool(4);
    assert_eq!(pool.acquire(&handle("web"), 2).unwrap(), [61000, 61001]);
    assert_eq!(pool.acquire(&handle("db"), 1).unwrap(), [61002]);
    assert_eq!(file(&pool), r#"{"acquired_ports":{"db":[61002],"web":[61000,61001]}}"#);
    pool.release(&handle("web"), 61000).unwrap();
    assert_eq!(pool.acquire(&handle("db"), 1).unwrap(), [61000]);
    pool.release_all(&handle("db")).unwrap();
    pool.release_all(&handle("db")).unwrap();
    assert_eq!(file(&pool), r#"{"acquired_ports":{"web":[61001]}}"#);
    assert_eq!(fs::metadata(&pool.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_exhausted_pool_says_so_and_gives_nothing() {
    let (_dir, pool) = pool(2);
    pool.acquire(&handle("web"), 1).unwrap();
    let before = file(&pool);
    let error = pool.acquire(&handle("db"), 2).unwrap_err();
    assert_eq!(error.to_string(), "port pool exhausted");
    assert_eq!(file(&pool), before);
}

#[test]
fn nothing_is_created_for_nothing() {
    let (dir, pool) = pool(2);
    pool.release_all(&handle("web")).unwrap();
    assert_eq!(pool.acquire(&handle("web"), 0).unwrap(), [0u16; 0]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_truncated_file_is_an_error_and_can_be_rebuilt() {
    let (_dir, pool) = pool(4);
    pool.acquire(&handle("web"), 2).unwrap();
    let whole = file(&pool);
    for length in 1..whole.len() {
        fs::write(&pool.path, &whole[..length]).unwrap();
        let error = pool.acquire(&handle("db"), 1).unwrap_err();
        assert!(error.to_string().starts_with("decoding state file: "), "{error}");
    }
    assert!(pool.rebuild([("web".to_owned(), vec![61000]), ("db".to_owned(), vec![])]).unwrap());
    assert!(!pool.rebuild([]).unwrap());
    assert_eq!(file(&pool), r#"{"acquired_ports":{"web":[61000]}}"#);
}

#[test]
fn a_blank_file_is_rebuilt_only_for_ports() {
    let (_dir, pool) = pool(4);
    assert!(!pool.rebuild([("db".to_owned(), vec![])]).unwrap());
    assert!(pool.rebuild([("web".to_owned(), vec![61000])]).unwrap());
    pool.release_all(&handle("web")).unwrap();
    assert!(!pool.rebuild([("web".to_owned(), vec![61000])]).unwrap(), "its list is empty");
}

#[test]
fn networkers_at_once_never_give_a_port_twice() {
    let (_dir, pool) = pool(400);
    thread::scope(|scope| {
        for worker in 0..16 {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..10 {
                    let handle = handle(&format!("c-{worker}-{n}"));
                    pool.acquire(&handle, 2).unwrap();
                    if n % 2 == 0 {
                        pool.release_all(&handle).unwrap();
                    }
                }
            });
        }
    });
    let acquired = Acquired::decode(file(&pool).as_bytes()).unwrap();
    let all: Vec<_> = acquired.acquired_ports.values().flatten().collect();
    assert_eq!(all.len(), 16 * 5 * 2);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Acquired::decode(&bytes);
    }

    /// Whatever happens, no port has two owners, and what is released is free.
    #[test]
    fn every_port_has_at_most_one_owner(steps in prop::collection::vec((0u8..5, 0usize..4, any::<bool>()), 0..60)) {
        let mut acquired = Acquired::default();
        for (who, count, take) in steps {
            let who = handle(&format!("c{who}"));
            if take {
                let _ = acquired.acquire(&who, count, 61000..=61007);
            } else {
                acquired.release_all(&who);
                prop_assert!(!acquired.acquired_ports.contains_key(who.as_str()));
            }
            let all: Vec<_> = acquired.acquired_ports.values().flatten().collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            prop_assert!(all.iter().all(|port| (61000..=61007).contains(*port)));
        }
    }
}
