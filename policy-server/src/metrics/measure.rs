//! Measuring requests. Around both listeners' routes; which route it was is said by the [`Measured`]
//! extension of the request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use tokio::time::Instant;

use super::{Metrics, Status};
use crate::api::{Measured, error::ApiError};

tokio::task_local! {
    /// How long the request of this task has rested so far.
    static RESTED: Rested;
}

/// Nanoseconds.
#[derive(Debug, Clone, Default)]
struct Rested(Arc<AtomicU64>);

/// Passes the request on, and tells how it ended and how long that took. Preflights are not measured.
pub(crate) async fn measure(
    State(metrics): State<Metrics>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let mut measuring = Measuring::begin(metrics, request.extensions().get().copied());
    let response = RESTED.scope(measuring.rested.clone(), next.run(request)).await;
    measuring.end(&response);
    response
}

/// Awaits `change`, and does not count the time as part of the answer's.
pub(super) async fn resting<T>(change: impl Future<Output = T>) -> T {
    // Where nobody measures, nothing is to be told.
    let _rest = RESTED.try_with(Rest::begin);
    change.await
}

/// Counts while it lives.
struct Rest {
    began: Instant,
    rested: Rested,
}

/// A request that is being answered. Told of when dropped, so that a caller who hangs up is counted.
struct Measuring {
    metrics: Metrics,
    began: Instant,
    rested: Rested,
    route: Option<Measured>,
    status: Status,
}

impl Measuring {
    fn begin(metrics: Metrics, route: Option<Measured>) -> Self {
        let (began, rested) = (Instant::now(), Rested::default());
        Self { metrics, began, rested, route, status: Status::HungUp }
    }

    fn end(&mut self, response: &Response) {
        self.status = Status::Answered(response.status().as_u16());
        if response.extensions().get::<Arc<ApiError>>().is_some() {
            self.metrics.error();
        }
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        let Some(route) = self.route else { return };
        let took = self.began.elapsed().saturating_sub(self.rested.get());
        self.metrics.request(route, self.status, took);
    }
}

impl Rest {
    fn begin(rested: &Rested) -> Self {
        Self { began: Instant::now(), rested: rested.clone() }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.rested.add(self.began.elapsed());
    }
}

impl Rested {
    fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use axum::{Extension, Router, body::Body, middleware::from_fn_with_state, routing::get};
    use tokio::time::{sleep, timeout};
    use tower::ServiceExt;

    use super::*;
    use crate::api::error::ApiError;

    /// What is counted after a caller asks for `path` and waits for a minute.
    async fn after(method: Method, path: &str) -> String {
        let metrics = Metrics::new();
        let held = metrics.clone();
        let routes = Router::new()
            .route("/slow", get(async || sleep(Duration::from_secs(2)).await))
            .route("/refused", get(async || ApiError::NoToken))
            .route("/held", get(async move || held.held(sleep(Duration::from_secs(600))).await))
            .layer(from_fn_with_state(metrics.clone(), measure))
            .layer(Extension(Measured("Asked")));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let _ = timeout(Duration::from_secs(60), routes.oneshot(request)).await;
        let mut page = String::new();
        metrics.0.events.write(&mut page).unwrap();
        page
    }

    #[track_caller]
    fn says(page: &str, lines: &[&str]) {
        for line in lines {
            assert!(page.contains(&format!("netman_policy_server_{line}\n")), "{line}: {page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_counted_with_the_time_it_took() {
        says(
            &after(Method::GET, "/slow").await,
            &[
                r#"http_requests_total{route="Asked",status="200"} 1"#,
                r#"http_request_duration_seconds_bucket{le="1.0",route="Asked"} 0"#,
                r#"http_request_duration_seconds_bucket{le="2.5",route="Asked"} 1"#,
                "http_errors_total 0",
            ],
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_counted_as_one_too() {
        let request = r#"http_requests_total{route="Asked",status="401"} 1"#;
        says(&after(Method::GET, "/refused").await, &[request, "http_errors_total 1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn preflights_are_not_measured() {
        let page = after(Method::OPTIONS, "/slow").await;
        assert!(!page.contains("http_requests_total"), "{page}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_hangs_up_is_counted_and_the_time_its_poll_was_held_is_not() {
        says(
            &after(Method::GET, "/held").await,
            &[
                r#"http_requests_total{route="Asked",status="hung_up"} 1"#,
                r#"http_request_duration_seconds_bucket{le="0.0005",route="Asked"} 1"#,
                "polls_held 0",
            ],
        );
    }
}
