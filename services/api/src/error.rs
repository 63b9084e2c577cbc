//! Errors meet HTTP here, as the last step.

use std::error::Error as Source;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::error::{Refusal, chain};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// Why a request is not done. Variants differ where the answer does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller can do something about it, and is told what.
    #[error("{detail}")]
    Refused {
        status: StatusCode,
        code: &'static str,
        detail: String,
    },
    /// No token, or not one of ours.
    #[error("{detail}")]
    Unauthenticated {
        /// What `WWW-Authenticate` says.
        challenge: &'static str,
        detail: &'static str,
    },
    /// The store or the blobs are away: come again.
    #[error("unavailable")]
    Unavailable(#[source] Box<dyn Source + Send + Sync>),
    /// Ours to mend: the caller learns nothing but the request's id.
    #[error("fault")]
    Fault(#[source] Box<dyn Source + Send + Sync>),
}

impl Error {
    /// Under this Idempotency-Key stands another request of the same person.
    pub fn key_reused() -> Self {
        Self::invalid(
            "idempotency_key_reused",
            "this Idempotency-Key has named another request of yours; a new request needs a new key",
        )
    }

    /// 404: also for an id of another form than ours.
    pub fn not_found(what: &str) -> Self {
        Self::Refused {
            status: StatusCode::NOT_FOUND,
            code: "not_found",
            detail: format!("there is no such {what}"),
        }
    }

    /// 400: the request cannot be read.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Refused {
            status: StatusCode::BAD_REQUEST,
            code,
            detail: detail.into(),
        }
    }

    /// 422: it can be read, but asks for something that cannot be.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Refused {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code,
            detail: detail.into(),
        }
    }

    /// 409: not in the present state.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Refused {
            status: StatusCode::CONFLICT,
            code,
            detail: detail.into(),
        }
    }

    /// 503: others were faster too often, or it took too long.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "busy",
            detail: detail.into(),
        }
    }
}

/// The body of every refusal.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Short and stable, for programs.
    #[schema(example = "wrong_state")]
    code: &'static str,
    /// One sentence for people: what is wrong, and what would be right.
    detail: String,
}

/// The refusals that every route may answer, for the description.
#[derive(IntoResponses)]
pub enum Problems {
    /// The request cannot be read: malformed JSON, an unknown parameter, a cursor that is not ours.
    #[response(status = 400)]
    Unreadable(Problem),
    /// No bearer token, or not a valid one.
    #[response(status = 401)]
    Unauthenticated(Problem),
    /// No such thing; also for an id of another form than ours.
    #[response(status = 404)]
    NotFound(Problem),
    /// A fault of ours. The body is empty; `x-request-id` finds it in our log.
    #[response(status = 500)]
    Fault,
    /// The store is away or busy: try again after `Retry-After` seconds.
    #[response(status = 503)]
    Unavailable(Problem),
}

/// The refusals of routes that take a body.
#[derive(IntoResponses)]
pub enum BodyProblems {
    /// The body is larger than 10 MiB.
    #[response(status = 413)]
    TooLarge(Problem),
    /// The body is not JSON.
    #[response(status = 415)]
    UnsupportedMediaType(Problem),
    /// Something is missing, unknown or has a value that is not allowed.
    #[response(status = 422)]
    Invalid(Problem),
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match self {
            Self::Refused { status, code, detail } => {
                let mut response = (status, Json(Problem { code, detail })).into_response();
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    retry_after(&mut response);
                }
                response
            }
            Self::Unauthenticated { challenge, detail } => {
                let problem = Problem {
                    code: "unauthenticated",
                    detail: detail.to_owned(),
                };
                let challenge = [(header::WWW_AUTHENTICATE, challenge)];
                (StatusCode::UNAUTHORIZED, challenge, Json(problem)).into_response()
            }
            Self::Unavailable(source) => {
                tracing::warn!(error = chain(source.as_ref()), "a request found the store unavailable");
                let problem = Problem {
                    code: "unavailable",
                    detail: "the desk's store is unavailable for the moment".to_owned(),
                };
                let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(problem)).into_response();
                retry_after(&mut response);
                response
            }
            Self::Fault(source) => {
                tracing::error!(error = chain(source.as_ref()), "a request failed by a fault of ours");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal.code {
            "wrong_state" | "opted_out" | "reply_window_closed" => Self::conflict(refusal.code, refusal.detail),
            _ => Self::invalid(refusal.code, refusal.detail),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable { .. } => Self::Unavailable(error.into()),
            store::Error::Refused { .. } | store::Error::Corrupt(_) | store::Error::Settings(_) => {
                Self::Fault(error.into())
            }
        }
    }
}

impl From<bus::Error> for Error {
    fn from(error: bus::Error) -> Self {
        match error {
            bus::Error::Unavailable(_) => Self::Unavailable(error.into()),
            bus::Error::Malformed(_) | bus::Error::Settings(_) => Self::Fault(error.into()),
        }
    }
}

impl From<PathRejection> for Error {
    fn from(_: PathRejection) -> Self {
        Self::not_found("thing")
    }
}

impl From<QueryRejection> for Error {
    fn from(rejection: QueryRejection) -> Self {
        let (code, detail) = crate::extract::explain(&rejection.body_text(), "parameter");
        Self::bad_request(code, detail)
    }
}

fn retry_after(response: &mut Response) {
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn check(error: Error, status: u16, code: Option<&str>, headers: &[(&str, &str)]) {
        let shown = error.to_string();
        let response = error.into_response();
        assert_eq!(response.status().as_u16(), status, "{shown}");
        for (name, value) in headers {
            assert_eq!(response.headers()[*name], *value, "{shown}");
        }
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let Some(code) = code else {
            assert!(body.is_empty(), "{shown}");
            return;
        };
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["code"], code, "{shown}");
        assert!(problem["detail"].is_string(), "{shown}");
    }

    #[tokio::test]
    async fn each_error_has_its_answer() {
        let retry = [("retry-after", "1")];
        let secret = || "the database at db.internal".to_owned();
        check(Error::not_found("ticket"), 404, Some("not_found"), &[]).await;
        check(Error::bad_request("bad_cursor", "no"), 400, Some("bad_cursor"), &[]).await;
        check(Error::busy("others"), 503, Some("busy"), &retry).await;
        check(Refusal::wrong_state("no").into(), 409, Some("wrong_state"), &[]).await;
        check(Refusal::invalid("no").into(), 422, Some("invalid"), &[]).await;
        check(
            bus::Error::Unavailable(secret()).into(),
            503,
            Some("unavailable"),
            &retry,
        )
        .await;
        check(bus::Error::Malformed(secret()).into(), 500, None, &[]).await;
        check(store::Error::Corrupt(secret()).into(), 500, None, &[]).await;
        check(store::Error::Settings(secret()).into(), 500, None, &[]).await;
    }

    #[test]
    fn the_log_gets_the_whole_chain() {
        let inner = bus::Error::Unavailable("broken pipe".to_owned());
        let error = Error::from(inner);
        assert_eq!(chain(&error), "unavailable: the event log is unavailable: broken pipe");
    }
}
