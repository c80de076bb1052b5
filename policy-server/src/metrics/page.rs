//! `GET /metrics`, for the debug listener.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::encoding::text;

use super::{levels, readings::Readings};
use crate::server::Server;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Routes that answer with everything `server` can tell of itself.
pub(crate) fn routes(server: Arc<Server>) -> Router {
    Router::new().route("/metrics", get(show)).with_state(server)
}

async fn show(State(server): State<Arc<Server>>) -> Response {
    match write(&server, &Readings::take(&server).await) {
        Ok(page) => ([(CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        // Writing to a string fails only if the library refuses a value.
        Err(error) => {
            tracing::error!(%error, "Could not write the page of metrics.");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn write(server: &Server, readings: &Readings) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    server.metrics.0.events.write(&mut page)?;
    text::encode_registry(&mut page, &levels::of(readings))?;
    text::encode_eof(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Instant};

    use axum::{body::Body, extract::Request};
    use http_body_util::BodyExt;
    use policy::TagLength;
    use policy_store::{LeasePool, Options, PolicyStore, StoreUrl};
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        api::ApiSettings, auth::LocalVerifier, data_dir::DataDir, metrics::Metrics,
        receipts::Receipts, router, snapshot::feed,
    };

    async fn server(dir: &tempfile::TempDir) -> (Arc<Server>, Arc<dyn PolicyStore>) {
        let data = DataDir::at(dir.path());
        data.create().unwrap();
        let tag_length = TagLength::new(1).unwrap();
        let url = StoreUrl::Sqlite(data.database());
        let store =
            policy_store::open(&url, &Options { tag_length, ..Options::default() }).await.unwrap();
        let metrics = Metrics::new();
        let store = metrics.telling_of(store);
        let (feed, _) = feed::start(store.clone(), tag_length, Metrics::new()).await.unwrap();
        let server = Server {
            store: store.clone(),
            feed,
            receipts: Receipts::new(metrics.clone()),
            verifier: Arc::new(LocalVerifier::load_or_make(&data).unwrap()),
            self_service: false,
            apps: None,
            cleaner: None,
            tag_length,
            lease_pool: LeasePool::new("10.0.0.0/8".parse().unwrap(), 24, LeasePool::EXPIRY)
                .unwrap(),
            metrics,
            started: Instant::now(),
            shutdown: CancellationToken::new(),
        };
        (Arc::new(server), store)
    }

    fn external(server: Arc<Server>) -> Router {
        router::external(server, &ApiSettings::default())
    }

    async fn get(routes: Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = routes.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn it_tells_what_happened_and_how_things_stand() {
        let dir = tempfile::tempdir().unwrap();
        let (server, store) = server(&dir).await;
        store.tag_for("gateway", "router").await.unwrap();
        get(external(server.clone()), "/networking/v1/external/tags").await;
        let (status, page) = get(routes(server), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        for line in [
            r#"http_requests_total{route="TagsIndex",status="401"} 1"#,
            "http_errors_total 1",
            "policies 0",
            r#"tags{state="free"} 254"#,
            r#"tags{state="quarantined"} 0"#,
            r#"database_queries_total{outcome="failed"} 0"#,
            r#"store_operations_total{operation="StoreCreateTag",outcome="succeeded"} 1"#,
            r#"tags{state="used"} 1"#,
            r#"cells{state="behind"} 0"#,
            r#"cells{state="failing"} 0"#,
            "receipts_written_total 0",
            "cell_confirm_seconds_count 0",
        ] {
            assert!(page.contains(&format!("netman_policy_server_{line}\n")), "{line}: {page}");
        }
        assert!(page.contains("\nprocess_resident_memory_bytes "), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    /// Base units, `_total` for what only grows, one description each.
    #[tokio::test]
    async fn its_names_follow_the_conventions() {
        let dir = tempfile::tempdir().unwrap();
        let (server, _) = server(&dir).await;
        get(external(server.clone()), "/").await;
        let (_, page) = get(routes(server), "/metrics").await;
        let words = |start: &str| -> Vec<(String, String)> {
            let lines = page.lines().filter_map(|line| line.strip_prefix(start));
            let words = lines.filter_map(|line| line.split_once(' '));
            words.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
        };
        let types = words("# TYPE ");
        assert_eq!(types.len(), words("# HELP ").len());
        assert_eq!(types.iter().collect::<BTreeSet<_>>().len(), types.len());
        for (name, kind) in types {
            let ours = name.starts_with("netman_policy_server_") || name.starts_with("process_");
            assert!(ours, "{name}");
            assert!(!name.ends_with("_milliseconds") && !name.ends_with("_ms"), "{name}");
            let counts = page.lines().any(|line| line.starts_with(&format!("{name}_total")));
            assert_eq!(counts, kind == "counter", "{name} is a {kind}: {page}");
        }
    }

    #[tokio::test]
    async fn what_the_database_does_not_say_is_missing_and_the_rest_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (server, store) = server(&dir).await;
        store.close().await;
        let (status, page) = get(routes(server), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(!page.contains("server_tags") && page.contains("server_policies 0"), "{page}");
    }
}
