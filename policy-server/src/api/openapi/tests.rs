use std::{env, fs, path::Path};

use policy::wire::v1;

use super::*;
use crate::api::version::Version;

/// The document as JSON.
fn document() -> serde_json::Value {
    serde_json::from_str(text()).unwrap()
}

#[test]
fn the_checked_in_document_is_the_one_that_is_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, text()).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == text(),
        "docs/openapi.json is out of date: run `UPDATE_DOCS=1 cargo test -p policy-server --lib openapi` and commit it"
    );
}

/// The one who learns from them should not be refused.
#[test]
fn examples_of_bodies_are_valid() {
    let document = document();
    let paths = &document["paths"];
    for (path, method) in [
        ("/networking/{version}/external/policies", "post"),
        ("/networking/{version}/external/policies/delete", "post"),
        ("/networking/v0/external/policies", "delete"),
    ] {
        let examples =
            &paths[path][method]["requestBody"]["content"]["application/json"]["examples"];
        for (name, example) in examples.as_object().unwrap() {
            let version = if name == "v1" { Version::V1 } else { Version::V0 };
            let policies = version.read(example["value"].to_string().as_bytes()).unwrap();
            assert_eq!(policies.len(), 1, "{path} {name}");
        }
    }
}

#[test]
fn what_is_always_sent_is_required() {
    let document = document();
    let required = |name: &str| document["components"]["schemas"][name]["required"].to_string();
    assert_eq!(required("v1.Policy"), r#"["source","destination"]"#);
    assert_eq!(required("Source"), r#"["id"]"#);
    assert!(required("AuditEntry").contains("revision"));
    assert!(!required("AuditEntry").contains("address"));
    assert!(required("CellStatus").contains("wanted"));
    for absent in ["enforced", "server", "backend", "error", "security_groups"] {
        assert!(!required("CellStatus").contains(&format!("\"{absent}\"")), "{absent}");
    }
}

/// Names of two versions, lest one hides the other.
#[test]
fn both_versions_have_their_shapes() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    assert_eq!(v1::PolicyList::name(), "v1.PolicyList");
    assert!(schemas["v1.Destination"]["properties"]["ports"].is_object());
    assert!(schemas["v0.Destination"]["properties"]["port"].is_object());
    assert_eq!(schemas["PolicyList"]["oneOf"].as_array().unwrap().len(), 2);
}
