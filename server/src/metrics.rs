//! The Prometheus endpoint: `/metrics`, `/metrics/per-object`, `/metrics/detailed`, `/livez`, `/readyz`,
//! `/healthz`.
//!
//! Counters of the node and of each protocol go through the recorder of the `metrics` crate, whose handles
//! [`Counters`](crate::counters::Counters) keeps. Everything about single objects is read from the broker when
//! somebody asks, so that nothing goes stale. One page has both, see [`collect`]; what there is, is listed in
//! [`families`].
//!
//! It answers while the store is being opened, too, with what there is to say then.
//!
//! There is no login and no TLS here, and nothing can be changed. Scrapes are bounded in number, time and size.

mod churn;
mod collect;
mod counted;
mod doors;
mod families;
mod page;
mod process;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::metrics::{KeyName, Recorder as _};
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use tracing::{debug, warn};

use crate::health;
use crate::node::Node;
use crate::opening::Opening;
use churn::QueueChurn;
use collect::{Content, Exporter, Group};
use doors::Doors;
use families::Kind;
use page::{Names, Page};

/// Pages that are written at the same time; who comes then is told to come again.
const SCRAPES_MAX: usize = 4;

/// How long a page may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(60);

/// Octets of a page that wait for their reader.
const PIPE_LEN: usize = 64 * 1024;

/// How long pages that are under way may still take when the broker stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// The text format (Prometheus, exposition formats, version 0.0.4).
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is said where there is nothing.
const NOT_FOUND: &str = "not found; there are /metrics, /metrics/per-object, /metrics/detailed, /livez, /readyz and /healthz\n";

/// The recorder for [`Counters`](crate::counters::Counters), and the handle that reads it.
pub(crate) fn recorder() -> (PrometheusRecorder, PrometheusHandle) {
    let recorder = PrometheusBuilder::new().build_recorder();
    for family in families::ALL.iter().filter(|family| family.kind == Kind::Counted) {
        let name = KeyName::from_const_str(family.name);
        recorder.describe_counter(name, None, family.help.into());
    }
    let handle = recorder.handle();
    (recorder, handle)
}

/// The endpoint, on all its addresses. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    recorder: PrometheusHandle,
    opening: Opening,
    /// There when clients can connect.
    exporter: Arc<OnceLock<Exporter>>,
    scrapes: Arc<Semaphore>,
}

impl Endpoint {
    /// The endpoint of a broker that is about to open its store.
    pub(crate) fn new(recorder: PrometheusHandle, opening: Opening) -> Self {
        let scrapes = Arc::new(Semaphore::new(SCRAPES_MAX));
        Self { recorder, opening, exporter: Arc::default(), scrapes }
    }

    /// The broker can be reached: pages have all of it from now on.
    pub(crate) fn open(&self, node: Arc<Node>) {
        let (recorder, opening) = (self.recorder.clone(), self.opening.clone());
        self.exporter.get_or_init(|| Exporter {
            node,
            recorder,
            churn: QueueChurn::default(),
            opening,
        });
    }
}

/// Answers on `listener` until the broker stops, at most `visitors` connections at a time.
pub(crate) async fn serve(
    endpoint: Endpoint,
    listener: TcpListener,
    visitors: usize,
    mut stopping: watch::Receiver<bool>,
) {
    let router = router(endpoint);
    let mut stops = stopping.clone();
    let served =
        axum::serve(Doors::new(listener, visitors), router).with_graceful_shutdown(async move {
            // Fails only when the sender is gone, and then the broker is.
            stops.wait_for(|stop| *stop).await.ok();
        });
    let farewell = async {
        stopping.wait_for(|stop| *stop).await.ok();
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            warn!(%error, "the metrics endpoint ended");
        },
        () = farewell => debug!("a scrape did not end in time"),
    }
}

fn router(endpoint: Endpoint) -> Router {
    Router::new()
        .route("/metrics", get(aggregated))
        .route("/metrics/per-object", get(per_object))
        .route("/metrics/detailed", get(detailed))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/healthz", get(healthy))
        .fallback(async || (StatusCode::NOT_FOUND, NOT_FOUND))
        .with_state(endpoint)
}

async fn aggregated(State(endpoint): State<Endpoint>) -> Response {
    scrape(&endpoint, Content::Aggregated, Names::Plain, None)
}

async fn per_object(State(endpoint): State<Endpoint>) -> Response {
    scrape(&endpoint, Content::PerObject, Names::Plain, None)
}

async fn detailed(
    State(endpoint): State<Endpoint>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    match selection(&parameters) {
        Ok(content) => {
            let nothing = matches!(&content, Content::Detailed { groups, .. } if groups.is_empty());
            let hint =
                nothing.then(|| format!("add ?family=NAME, once or more: {}", known_groups()));
            scrape(&endpoint, content, Names::Detailed, hint.as_deref())
        }
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

/// Ready is a broker that is reached: all listeners are open. An alarm holds publishers, and consumers, who end it,
/// must still find the broker; so it is told and does not count.
async fn ready(State(endpoint): State<Endpoint>) -> (StatusCode, String) {
    let Some(exporter) = endpoint.exporter.get() else {
        let progress = endpoint.opening.now();
        return (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {progress}\n"));
    };
    match health::unwell(&exporter.node) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::OK, format!("ready, but {why}\n")),
    }
}

/// Healthy is a broker that takes messages, as for `warren health`. With `?verbose` it says what that depends on.
async fn healthy(
    State(endpoint): State<Endpoint>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> (StatusCode, String) {
    let is_verbose = parameters.iter().any(|(name, _)| name == "verbose");
    if let Some((name, _)) = parameters.iter().find(|(name, _)| name != "verbose") {
        let why = format!("there is no parameter '{name}'; there is verbose\n");
        return (StatusCode::BAD_REQUEST, why);
    }
    let Some(exporter) = endpoint.exporter.get() else {
        let progress = endpoint.opening.now();
        return (StatusCode::SERVICE_UNAVAILABLE, format!("unwell: not ready: {progress}\n"));
    };
    let node = &exporter.node;
    let (status, mut text) = match health::unwell(node) {
        None => (StatusCode::OK, "healthy\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("unwell: {why}\n")),
    };
    if is_verbose {
        text.push_str(&health::details(node));
    }
    (status, text)
}

/// What the parameters of `/metrics/detailed` ask for.
fn selection(parameters: &[(String, String)]) -> Result<Content, String> {
    let mut groups = Vec::new();
    let mut vhosts: Option<Vec<String>> = None;
    for (name, value) in parameters {
        match name.as_str() {
            "family" if value == "all" => groups.extend(Group::ALL),
            "family" => {
                let found = Group::ALL.into_iter().find(|group| group.name() == value);
                groups.push(found.ok_or_else(|| {
                    format!("there is no family '{value}'; there are {}", known_groups())
                })?);
            }
            "vhost" => vhosts.get_or_insert_default().push(value.clone()),
            _ => return Err(format!("there is no parameter '{name}'; there are family and vhost")),
        }
    }
    Ok(Content::Detailed { groups, vhosts })
}

fn known_groups() -> String {
    let names: Vec<_> = Group::ALL.iter().map(|group| group.name()).collect();
    format!("{}, all", names.join(", "))
}

/// A page, written while it is read.
fn scrape(endpoint: &Endpoint, content: Content, names: Names, hint: Option<&str>) -> Response {
    let Ok(permit) = Arc::clone(&endpoint.scrapes).try_acquire_owned() else {
        let busy = [(header::RETRY_AFTER, "1")];
        return (StatusCode::SERVICE_UNAVAILABLE, busy, "too many scrapes at a time\n")
            .into_response();
    };
    let (reader, writer) = duplex(PIPE_LEN);
    let mut page = Page::new(names, writer);
    if let Some(hint) = hint {
        page.comment(hint);
    }
    tokio::spawn(write(endpoint.clone(), content, page, permit));
    let body = Body::from_stream(ReaderStream::new(reader));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

async fn write(
    endpoint: Endpoint,
    content: Content,
    mut page: Page,
    _permit: OwnedSemaphorePermit,
) {
    let written = async {
        match endpoint.exporter.get() {
            Some(exporter) => collect::write(exporter, &content, &mut page).await,
            None => collect::write_opening(&endpoint.opening, &content, &mut page).await,
        }
    };
    match timeout(SCRAPE_TIMEOUT, written).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a scraper went away"),
        Err(_) => debug!("a scraper did not take its page in time"),
    }
}
