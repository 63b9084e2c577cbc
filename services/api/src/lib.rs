//! The desk's public API: status codes, JSON shapes, who may enter. Nothing here
//! decides: a handler parses, loads, lets the model decide, commits and answers.
//!
//! Suggested reading order: a request passes `answer` below and `token`, is
//! taken apart by `extract` and `page`, and meets one file for each resource;
//! whatever goes wrong becomes HTTP in `error`.

pub mod error;
mod extract;
mod once;
mod page;
mod token;

mod tickets;

mod contacts;
mod conversations;
mod files;
pub mod links;
mod messages;
mod reach;
mod replies;

mod accounts;
mod parked;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use model::time::Moment;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tracing::Instrument;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use error::Error;

/// The largest body of a request, in bytes: 10 MiB.
pub const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a file may be on its way to us.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(300);

/// How often a handler decides again because somebody else was faster.
const ATTEMPTS: usize = 5;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the API works on.
#[derive(Clone)]
pub struct Desk {
    pub store: store::Store,
    /// Attachments and large raw inputs.
    pub blobs: bus::Blobs,
    /// For those who look at a conversation right now.
    pub hints: bus::hints::Hints,
    /// Of files that people upload.
    pub limits: model::file::Limits,
    /// Makes links to accounts.
    pub invite: links::Invite,
}

/// The API as it stands on the desk listener.
pub fn routes(desk: Desk) -> Router {
    let tokens = token::Tokens::new(desk.store.clone());
    let closed = closed().route_layer(from_fn_with_state(tokens, token::authenticate));
    let (router, document) = open().merge(closed).split_for_parts();
    let router = router
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(Extension(Arc::new(document)));
    guarded(router).with_state(desk)
}

/// What surrounds every handler.
fn guarded<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(answer))
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION]))
}

/// The one place where the API reads the time.
pub fn now() -> Moment {
    SystemTime::now().into()
}

/// What the routes say of themselves: OpenAPI 3.1.
pub fn document() -> utoipa::openapi::OpenApi {
    open().merge(closed()).into_openapi()
}

/// Routes for anybody.
fn open() -> OpenApiRouter<Desk> {
    OpenApiRouter::with_openapi(description()).routes(routes!(openapi))
}

/// Routes for people of the desk. Each is added with its description, and only so.
fn closed() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(tickets::list))
        .routes(routes!(tickets::show))
        .routes(routes!(tickets::act))
        .routes(routes!(tickets::list_messages))
        .routes(routes!(contacts::list))
        .routes(routes!(contacts::show))
        .routes(routes!(contacts::merge))
        .routes(routes!(contacts::part))
        .routes(routes!(conversations::show))
        .routes(routes!(conversations::erase))
        .routes(routes!(conversations::list_messages))
        .routes(routes!(conversations::typing))
        .routes(routes!(links::make))
        .routes(routes!(replies::reply))
        .routes(routes!(replies::note))
        .routes(routes!(messages::show))
        .routes(routes!(messages::raw))
        .routes(routes!(messages::history::history))
        .routes(routes!(messages::attachment))
        .routes(routes!(messages::fetch))
        .routes(routes!(files::upload))
        .routes(routes!(messages::resend))
        .routes(routes!(messages::settle))
        .routes(routes!(parked::list))
        .routes(routes!(parked::show))
        .routes(routes!(accounts::list))
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Tributary desk",
    description = "Tickets, conversations and messages of one installation. Moments are RFC 3339 in UTC. \
                   Errors are `{\"code\", \"detail\"}`: `code` is stable and for programs, `detail` is a sentence \
                   for people. Every answer carries `x-request-id`."
))]
struct Description;

fn description() -> utoipa::openapi::OpenApi {
    let mut document = Description::openapi();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", bearer);
    document.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
    document
}

/// This description of the API.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "openapi", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn openapi(Extension(document): Extension<Arc<utoipa::openapi::OpenApi>>) -> Response {
    Json(document.as_ref()).into_response()
}

async fn no_such_route() -> Error {
    Error::Refused {
        status: StatusCode::NOT_FOUND,
        code: "no_such_route",
        detail: "there is nothing here; /v1/openapi.json lists what there is".to_owned(),
    }
}

async fn no_such_method() -> Error {
    Error::Refused {
        status: StatusCode::METHOD_NOT_ALLOWED,
        code: "method_not_allowed",
        detail: "this method is not allowed here; /v1/openapi.json lists those that are".to_owned(),
    }
}

/// What every answer has in common: its request's id, its deadline, and headers
/// that keep browsers and proxies from guessing or keeping it.
async fn answer(request: Request, next: Next) -> Response {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let span = tracing::info_span!("request", request.id = %id);
    let patience = match request.uri().path() {
        files::PATH => UPLOAD_PATIENCE,
        _ => PATIENCE,
    };
    let handled = tokio::time::timeout(patience, next.run(request).instrument(span)).await;
    let mut response = handled.unwrap_or_else(|_| Error::busy("the request took too long").into_response());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Files say it themselves.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// The panic's own words go to the standard error stream; they may quote input,
/// so the log has none of them.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request's handler panicked");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt;

    use super::*;

    async fn panicking() -> StatusCode {
        panic!("as it should")
    }

    #[tokio::test]
    async fn a_panic_is_an_empty_500_with_the_requests_id() {
        let router = guarded(Router::new().fallback(panicking));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key(REQUEST_ID));
        assert!(to_bytes(response.into_body(), 1).await.unwrap().is_empty());
    }
}
