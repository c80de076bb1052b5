//! What documents say of the database is so.
#![allow(clippy::unwrap_used, reason = "a test that cannot read a file says which")]

use std::{collections::BTreeSet, fs, path::Path};

/// All tables of ours that the migrations of one database make.
fn ours(database: &Path) -> BTreeSet<String> {
    let scripts = fs::read_dir(database).unwrap().map(|file| file.unwrap().path());
    let text: String = scripts.map(|path| fs::read_to_string(path).unwrap()).collect();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let mut words =
        words.filter(|word| !word.is_empty() && !["IF", "NOT", "EXISTS"].contains(word));
    let mut tables = BTreeSet::new();
    while let Some(word) = words.next() {
        if word == "TABLE" {
            tables
                .extend(words.next().filter(|name| name.starts_with("netman_")).map(str::to_owned));
        }
    }
    tables
}

#[test]
fn whoever_goes_back_is_rid_of_all_our_tables() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = fs::read_to_string(root.join("docs/policy-server.md")).unwrap();
    let (_, rest) = document.split_once("DROP TABLE netman_").unwrap();
    let (list, _) = rest.split_once(';').unwrap();
    let list = format!("netman_{list}");
    let dropped: BTreeSet<_> = list.split(',').map(|name| name.trim().to_owned()).collect();
    for database in ["postgres", "mysql"] {
        let mut made = ours(&root.join("migrations").join(database));
        assert!(made.contains("netman_receipts"), "{made:?}");
        made.insert("netman_migrations".to_owned());
        assert_eq!(dropped, made, "{database}");
    }
}
