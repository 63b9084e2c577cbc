//! Files on their way to a browser.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};

use crate::Desk;
use crate::error::Error;

/// The blob as a file of this name, streamed under safe headers; in part, if the
/// request asks for a range.
pub async fn serve(desk: &Desk, sha256: &str, name: &str, request: &HeaderMap) -> Result<Response, Error> {
    let range = request.get(header::RANGE).and_then(|value| value.to_str().ok());
    let served = desk.blobs.serve(sha256, name, range).await?;
    let served = served.ok_or_else(|| Error::not_found("file"))?;
    let status = StatusCode::from_u16(served.status).unwrap_or(StatusCode::OK);
    let headers = AppendHeaders(served.headers);
    Ok((status, headers, Body::from_stream(served.bytes)).into_response())
}
