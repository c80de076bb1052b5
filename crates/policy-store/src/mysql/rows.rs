//! How batches travel: as JSON arrays, taken apart by `JSON_TABLE`, which MySQL and MariaDB share.
//!
//! A statement costs the same whether it carries one row or thousands, except that no packet may
//! exceed the server's `max_allowed_packet`; a batch that is too long for one goes as several.

use serde_json::Value;

/// No statement carries more than this many bytes of rows: a quarter of what MariaDB takes by default.
const MOST: usize = 4 << 20;

/// A column of `JSON_TABLE`: its name, its type, and where in a row it is.
pub(super) fn number(name: &str, place: usize) -> String {
    format!("{name} BIGINT PATH '$[{place}]'")
}

/// A text column that compares by its characters, one by one.
pub(super) fn text(name: &str, place: usize) -> String {
    format!("{name} LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[{place}]'")
}

/// `JSON_TABLE` over the next parameter, an array of arrays; `n` numbers its rows.
pub(super) fn table<const N: usize>(alias: &str, columns: &[String; N]) -> String {
    // CONVERT makes the parameter a text for certain, which is then read as JSON.
    let columns = columns.join(", ");
    format!(
        "JSON_TABLE(CONVERT(? USING utf8mb4), '$[*]' \
         COLUMNS (n FOR ORDINALITY, {columns})) AS {alias}"
    )
}

/// `rows` as parameters for [`table`]: one, unless they are very many. None if there are no rows.
pub(super) fn batches(rows: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut batches: Vec<String> = Vec::new();
    for row in rows {
        let row = row.to_string();
        match batches.last_mut() {
            Some(batch) if batch.len() + row.len() < MOST => {
                batch.push(',');
                batch.push_str(&row);
            }
            _ => batches.push(format!("[{row}")),
        }
    }
    for batch in &mut batches {
        batch.push(']');
    }
    batches
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_holds_its_rows_in_order() {
        assert_eq!(batches([json!([1, "a\"b"]), json!([2, null])]), [r#"[[1,"a\"b"],[2,null]]"#]);
        assert_eq!(batches([]), [""; 0]);
    }

    #[test]
    fn no_batch_is_longer_than_a_packet() {
        let row = json!(["x".repeat(MOST / 3)]);
        let cut = batches(vec![row.clone(); 7]);
        assert!(cut.iter().all(|batch| batch.len() <= MOST + 1));
        let rows = cut.iter().flat_map(|batch| serde_json::from_str::<Vec<Value>>(batch).unwrap());
        assert_eq!(rows.collect::<Vec<_>>(), vec![row; 7]);
    }
}
