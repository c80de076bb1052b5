//! What cells enforce, asked of one process and said to the other.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    database::Kind,
    deployment::{Deployment, Server, answer},
};

crate::stories! {
    a_caller_learns_of_one_process_what_cells_said_to_the_other,
    a_restored_database_is_told_of_by_the_file,
}

const OF_POLICIES: &str = "/networking/v1/external/policies/status";

/// A poll of `cell`, which runs `web` and enforces `known`.
async fn poll(deployment: &Deployment, internal: &Server, cell: &str, known: Option<&str>) {
    let url = format!("{}/networking/v1/internal/policies?id=web", internal.url);
    let mut request = deployment.agent().get(url).header("Netman-Cell", cell);
    if let Some(known) = known {
        request = request.header("If-None-Match", format!("\"{known}\""));
    }
    assert!([200, 304].contains(&answer(request).await.status));
}

async fn status(external: &Server) -> Value {
    external.admin(Method::GET, OF_POLICIES, "").await.json()
}

async fn a_caller_learns_of_one_process_what_cells_said_to_the_other(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let mut external = deployment.external(json!({})).await;
    let path = "/networking/v1/external/policies";
    let created = external.admin(Method::POST, path, &crate::deployment::v1(&["web db 1"])).await;
    let version = created.headers["netman-revision"].to_str().unwrap().to_owned();
    assert_eq!(status(&external).await["complete"], false, "no server that cells poll is known");

    let internal = deployment.internal(json!({})).await;
    poll(&deployment, &internal, "cell-1", Some(&version)).await;
    poll(&deployment, &internal, "cell-2", None).await;
    let until = async |external: &mut Server, expected: Value| {
        let Server { program, url, .. } = external;
        let url = format!("{url}{OF_POLICIES}");
        let what = format!("the policy's status is {expected}");
        program
            .until(&what, async || {
                let request = reqwest::Client::new().get(&url).bearer_auth("valid-token");
                let status = answer(request).await.json();
                let policy = &status["policies"][0];
                let seen = json!([
                    status["complete"],
                    policy["enforced"],
                    policy["relevant"],
                    policy["waiting"]
                ]);
                (seen == expected).then_some(())
            })
            .await;
    };
    until(&mut external, json!([true, 1, 2, ["cell-2"]])).await;
    poll(&deployment, &internal, "cell-2", Some(&version)).await;
    until(&mut external, json!([true, 2, 2, []])).await;

    drop(internal);
    until(&mut external, json!([true, 2, 2, []])).await;
}

async fn a_restored_database_is_told_of_by_the_file(kind: Kind) {
    let deployment = Deployment::migrated(kind).await;
    let external = deployment.external(json!({})).await;
    external.create(&["web db 1"]).await;
    let life = status(&external).await["life"].clone();
    let file = deployment.file(&external.config);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_policy-server"))
        .arg("restored")
        .arg("-config-file")
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let next = said.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(json!(next), life);
    let Server { mut program, url, .. } = external;
    program
        .until("the server is in the new life", async || {
            let request = reqwest::Client::new().get(format!("{url}{OF_POLICIES}"));
            let status = answer(request.bearer_auth("valid-token")).await.json();
            (status["life"] == next.as_str()).then_some(())
        })
        .await;
}
