use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use super::*;

fn names(extra: &[&str]) -> BTreeSet<String> {
    let extra: Vec<String> = extra.iter().map(|&name| name.to_owned()).collect();
    server_names("127.0.0.1".parse().unwrap(), &extra)
}

fn files(dir: &Path) -> BTreeMap<String, String> {
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
    };
    fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap())).collect()
}

/// Which files differ between two looks.
fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    after.keys().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

#[test]
fn the_first_start_makes_everything_and_the_second_nothing() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(&[])).unwrap();
    let first = files(dir.path());
    let expected = ["agent.crt", "agent.key", "ca.crt", "ca.key", "server.crt", "server.key"];
    assert_eq!(first.keys().collect::<Vec<_>>(), expected);
    for key in ["agent.key", "ca.key", "server.key"] {
        let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    ensure(dir.path(), &names(&[])).unwrap();
    assert_eq!(files(dir.path()), first);
}

#[test]
fn a_new_name_brings_a_new_server_certificate_from_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(&[])).unwrap();
    let before = files(dir.path());
    ensure(dir.path(), &names(&["cells.example", "10.0.0.1", "fd00::1"])).unwrap();
    let after = files(dir.path());
    assert_eq!(changed(&before, &after), ["server.crt", "server.key"]);
    let facts = inspect::Facts::of(&after["server.crt"]).unwrap();
    assert!(facts.names.is_superset(&names(&["cells.example", "10.0.0.1", "fd00::1"])));
    assert!(inspect::signed_by(&after["server.crt"], &before["ca.crt"]));
    // Fewer names are no reason for another, nor is another spelling.
    ensure(dir.path(), &names(&["cells.example", "FD00:0::1"])).unwrap();
    assert_eq!(files(dir.path()), after);
}

#[test]
fn a_broken_pair_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(&[])).unwrap();
    ensure(other.path(), &names(&[])).unwrap();
    let mut before = files(dir.path());
    let foreign = files(other.path());
    for (file, text) in
        [("agent.key", foreign["agent.key"].as_str()), ("agent.crt", "garbage"), ("agent.key", "")]
    {
        fs::write(dir.path().join(file), text).unwrap();
        ensure(dir.path(), &names(&[])).unwrap();
        let after = files(dir.path());
        assert_eq!(changed(&before, &after), ["agent.crt", "agent.key"], "{file}");
        before = after;
    }
    // A pair in itself, but of another authority.
    for file in ["agent.crt", "agent.key"] {
        fs::write(dir.path().join(file), &foreign[file]).unwrap();
    }
    ensure(dir.path(), &names(&[])).unwrap();
    assert!(inspect::signed_by(&files(dir.path())["agent.crt"], &before["ca.crt"]));
}

#[test]
fn certificates_are_replaced_before_they_end_and_an_ending_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(&[])).unwrap();
    let before = files(dir.path());
    let later = OffsetDateTime::now_utc() + Duration::days(700);
    let authority = Authority::load_or_make(dir.path(), later).unwrap();
    leaf::ensure(dir.path(), &authority, &Purpose::Agent, later).unwrap();
    assert_eq!(changed(&before, &files(dir.path())), ["agent.crt", "agent.key"]);

    let much_later = OffsetDateTime::now_utc() + Duration::days(3640);
    let refused = Authority::load_or_make(dir.path(), much_later).err().unwrap();
    assert!(matches!(refused, PkiError::AuthorityEnds { .. }), "{refused:?}");
}

#[test]
fn an_authority_without_its_key_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(&[])).unwrap();
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let before = files(dir.path());
    let refused = ensure(dir.path(), &names(&[])).unwrap_err();
    assert!(matches!(refused, PkiError::AuthorityKey { .. }), "{refused:?}");
    assert_eq!(files(dir.path()), before);
}
