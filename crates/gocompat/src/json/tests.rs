use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Request {
    name: String,
    port: i64,
    #[serde(rename = "Pid")]
    pid: Option<u32>,
    properties: BTreeMap<String, String>,
    inner: Inner,
    list: Vec<Inner>,
}

/// Go names a type with its package.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename = "go.Inner")]
struct Inner {
    id: String,
}

fn read(text: &str) -> Request {
    from_slice(text.as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    from_slice::<Request>(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn struct_keys_match_whatever_their_case_but_map_keys_stay() {
    let request = read(r#"{"NAME":"a","pid":7,"Properties":{"App_ID":"x"},"inner":{"Id":"b"}}"#);
    assert_eq!(request.name, "a");
    assert_eq!(request.pid, Some(7));
    assert_eq!(request.properties["App_ID"], "x");
    assert_eq!(request.inner.id, "b");
}

#[test]
fn null_leaves_the_default() {
    let request =
        read(r#"{"name":null,"port":null,"properties":null,"inner":null,"list":null,"Pid":null}"#);
    assert_eq!(request, Request::default());
    assert_eq!(read("null"), Request::default());
}

#[test]
fn the_last_of_equal_keys_wins() {
    assert_eq!(read(r#"{"name":"a","Name":"b","NAME":"c"}"#).name, "c");
    assert_eq!(read(r#"{"name":"a","name":null}"#).name, "a");
}

#[test]
fn keys_no_struct_asks_for_are_told_to_who_wants_to_know() {
    let text = r#"{"nam":"a","NAME":"b","inner":{"id":"c","di":1},"properties":{"any":"x"},
        "list":[{"id":"d"},{"ID":"e","idd":{"deep":1}}]}"#;
    let (request, strays) = from_slice_noting::<Request>(text.as_bytes(), &["inner.DI"]).unwrap();
    assert_eq!((request.name.as_str(), request.list.len()), ("b", 2));
    let mut keys: Vec<_> = strays.iter().map(|one| one.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["list[1].idd", "nam"]);
    let of_list = strays.iter().find(|one| one.key == "list[1].idd").unwrap();
    assert_eq!(of_list.meant.as_deref(), Some("list[1].id"));
    assert!(from_slice_noting::<Request>(b"{", &[]).is_err());
}

#[test]
fn every_key_whose_value_is_of_no_use_is_told_to_who_wants_to_know() {
    let refused = |text: &str| match from_slice_noting::<Request>(text.as_bytes(), &[]) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{text} is read"),
    };
    assert_eq!(
        refused(r#"{"Port":"x","name":[],"inner":7,"list":[{"id":"d"},{"id":5}]}"#),
        "port: invalid type: string \"x\", expected i64; \
         name: invalid type: sequence, expected a string; \
         inner: invalid type: integer `7`, expected an object; \
         list[1].id: invalid type: integer `5`, expected a string"
    );
    assert_eq!(refused("7"), "invalid type: integer `7`, expected an object");
    assert_eq!(refused(r#"{"port":"x"}"#), "port: invalid type: string \"x\", expected i64");
}

#[test]
fn unknown_keys_are_ignored() {
    assert_eq!(read(r#"{"other":{"deep":[1,2,{}]},"name":"a"}"#).name, "a");
}

#[test]
fn integers_must_be_written_as_integers() {
    assert_eq!(read(r#"{"port":-8080}"#).port, -8080);
    for bad in ["8080.0", "\"8080\"", "8e3", "true", "[]", "99999999999999999999"] {
        refused(&format!(r#"{{"port":{bad}}}"#));
    }
}

#[test]
fn a_value_out_of_place_is_named() {
    assert_eq!(
        refused(r#"{"list":[{"id":"a"},{"ID":5}]}"#),
        "list[1].id: invalid type: integer `5`, expected a string"
    );
    assert_eq!(refused("[]"), "invalid type: sequence, expected an object");
}

#[test]
fn what_go_would_say_is_known() {
    let go = |text: &str| from_slice::<Request>(text.as_bytes()).unwrap_err().in_go_words();
    for (text, words) in [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("banana", "invalid character 'b' looking for beginning of value"),
        ("{} x", "invalid character 'x' after top-level value"),
        ("[]", "json: cannot unmarshal array into Go value of type Request"),
        ("7", "json: cannot unmarshal number into Go value of type Request"),
        (
            r#"{"port":"8080"}"#,
            "json: cannot unmarshal string into Go struct field Request.port of type int",
        ),
        (
            r#"{"port":8080.0}"#,
            "json: cannot unmarshal number 8080.0 into Go struct field Request.port of type int",
        ),
        (
            r#"{"NAME":7}"#,
            "json: cannot unmarshal number into Go struct field Request.name of type string",
        ),
        (
            r#"{"pid":true}"#,
            "json: cannot unmarshal bool into Go struct field Request.Pid of type uint32",
        ),
        (
            r#"{"pid":-1}"#,
            "json: cannot unmarshal number -1 into Go struct field Request.Pid of type uint32",
        ),
        (
            r#"{"list":{"id":"a"}}"#,
            "json: cannot unmarshal object into Go struct field Request.list of type []go.Inner",
        ),
        (
            r#"{"list":[5]}"#,
            "json: cannot unmarshal number into Go struct field Request.list of type go.Inner",
        ),
        (
            r#"{"list":[{"id":"a"},{"ID":5}]}"#,
            "json: cannot unmarshal number into Go struct field Inner.list.id of type string",
        ),
    ] {
        assert_eq!(go(text), words, "{text}");
    }
}

#[test]
fn what_is_not_one_object_is_refused() {
    assert_eq!(refused(""), "unexpected end of JSON input");
    assert_eq!(refused(r#"{"name""#), "unexpected end of JSON input");
    for bad in ["[]", "\"a\"", "7", "{} x", "{}{}", "{'name':1}"] {
        refused(bad);
    }
}

#[test]
fn invalid_utf8_becomes_the_replacement_character() {
    let request: Request = from_slice(b"{\"name\":\"a\xff\"}").unwrap();
    assert_eq!(request.name, "a\u{fffd}");
}

#[test]
fn a_prefix_is_read_and_the_rest_left() {
    let request: Request = from_slice_prefix(b"{\"name\":\"a\"} trailing").unwrap();
    assert_eq!(request.name, "a");
    assert!(matches!(from_slice_prefix::<Request>(b"  "), Err(JsonError::Eof)));
}

#[test]
fn html_characters_are_escaped_on_output() {
    assert_eq!(to_string(&"<a>&\u{2028}"), r#""\u003ca\u003e\u0026\u2028""#);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        if let Err(error) = from_slice::<Request>(&bytes) {
            prop_assert!(!error.in_go_words().is_empty());
        }
    }

    #[test]
    fn any_text_survives_writing_and_reading(text in ".*") {
        let read: String = from_slice(to_string(&text).as_bytes()).unwrap();
        prop_assert_eq!(read, text);
    }
}
