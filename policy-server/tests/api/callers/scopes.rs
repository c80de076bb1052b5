use reqwest::Method;

use super::{ADMIN_TOKEN, BARE_TOKEN, Platform, Setup, WRITER_TOKEN};
use crate::{
    external::{AUDIT, DELETE, POLICIES, STATUS, TAGS, WHOAMI},
    world::v1,
};

const CLEANUP: &str = "/networking/v1/external/policies/cleanup";

const ADMIN_ROUTES: [(Method, &str); 5] = [
    (Method::GET, WHOAMI),
    (Method::GET, TAGS),
    (Method::GET, STATUS),
    (Method::GET, AUDIT),
    (Method::POST, CLEANUP),
];

const WRITE_ROUTES: [(Method, &str); 3] =
    [(Method::GET, POLICIES), (Method::POST, POLICIES), (Method::POST, DELETE)];

fn refusal(provided: &str, allowed: &str) -> (u16, String) {
    (403, format!("provided scopes [{provided}] do not include allowed scopes [{allowed}]"))
}

#[tokio::test]
async fn what_needs_a_scope_is_refused_without() {
    let platform = Platform::start().await;
    let body = v1(&["web db tcp 80"]);
    for (method, path) in WRITE_ROUTES {
        let refused = platform.call(BARE_TOKEN, method.clone(), path, &body).await;
        assert_eq!(refused.refusal(), refusal("", "network.admin network.write"), "{path}");
        for token in [WRITER_TOKEN, ADMIN_TOKEN] {
            let passed = platform.call(token, method.clone(), path, &body).await;
            assert_eq!(passed.status, 200, "{token} {method} {path}");
        }
    }
    for (method, path) in ADMIN_ROUTES {
        for (token, provided) in [(BARE_TOKEN, ""), (WRITER_TOKEN, "network.write")] {
            let refused = platform.call(token, method.clone(), path, "").await;
            assert_eq!(refused.refusal(), refusal(provided, "network.admin"), "{path}");
        }
        assert_eq!(platform.call(ADMIN_TOKEN, method, path, "").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn self_service_needs_no_scope_for_ones_own_apps() {
    let platform = Platform::start_with(Setup { self_service: true, ..Setup::default() }).await;
    platform.create(ADMIN_TOKEN, &["mail mail tcp 25"]).await;
    assert_eq!(platform.create(BARE_TOKEN, &["web db tcp 80"]).await.status, 200);
    assert_eq!(platform.seen(BARE_TOKEN).await, ["web db tcp 80-80"]);
    assert_eq!(platform.delete(BARE_TOKEN, &["web db tcp 80"]).await.status, 200);
    let text = "one or more applications cannot be found or accessed".to_owned();
    for refused in [
        platform.create(BARE_TOKEN, &["web mail tcp 80"]).await,
        platform.delete(BARE_TOKEN, &["mail mail tcp 25"]).await,
    ] {
        assert_eq!(refused.refusal(), (403, text.clone()));
    }
    for (method, path) in ADMIN_ROUTES {
        let refused = platform.call(BARE_TOKEN, method, path, "").await;
        assert_eq!(refused.refusal(), refusal("", "network.admin"), "{path}");
    }
    assert_eq!(platform.get("unknown", POLICIES).await.status, 401);
}
