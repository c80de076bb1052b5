//! Measuring requests. Around both listeners' routes; which route it was is said by the [`Measured`]
//! extension of the request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use tower::Service;

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
pub(crate) fn measure(
    State(metrics): State<Metrics>,
    request: Request,
    mut next: Next,
) -> impl Future<Output = Response> {
    let is_measured = request.method() != Method::OPTIONS;
    let route = request.extensions().get().copied();
    let measuring = is_measured.then(|| Measuring::begin(metrics, route));
    // Called, and not run: what waits for the answer has no room for the request.
    let answering = next.call(request);
    async move {
        let Some(mut measuring) = measuring else {
            let Ok(response) = answering.await;
            return response;
        };
        let Ok(response) = RESTED.scope(measuring.rested.clone(), answering).await;
        measuring.answered(&response);
        response.map(|body| Body::new(Sending { body, _measuring: measuring }))
    }
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

/// The body of an answer on its way: long ones are written while they are sent.
struct Sending {
    body: Body,
    _measuring: Measuring,
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

    fn answered(&mut self, response: &Response) {
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

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
    use std::convert::Infallible;

    use axum::{Extension, Router, middleware::from_fn_with_state, routing::get};
    use http_body_util::BodyExt;
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
            .route("/long", get(async || slowly_written()))
            .route("/refused", get(async || ApiError::NoToken))
            .route("/held", get(async move || held.held(sleep(Duration::from_secs(600))).await))
            .layer(from_fn_with_state(metrics.clone(), measure))
            .layer(Extension(Measured("Asked")));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let reading = async { routes.oneshot(request).await.unwrap().into_body().collect().await };
        let _ = timeout(Duration::from_secs(60), reading).await;
        let mut page = String::new();
        metrics.0.events.write(&mut page).unwrap();
        page
    }

    fn slowly_written() -> Body {
        let piece = async {
            sleep(Duration::from_secs(2)).await;
            Ok::<_, Infallible>("late")
        };
        Body::from_stream(futures::stream::once(piece))
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
    async fn an_answer_takes_as_long_as_it_is_written() {
        let page = after(Method::GET, "/long").await;
        let within = |seconds, count| {
            format!(
                r#"http_request_duration_seconds_bucket{{le="{seconds}",route="Asked"}} {count}"#
            )
        };
        says(&page, &[&within("1.0", 0), &within("2.5", 1)]);
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
