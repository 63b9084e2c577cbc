//! `/v1/files`: files that people upload, to be sent with replies; and files on
//! their way to a browser.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use bytes::Bytes;
use model::file;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::{Error, Problem, Problems};
use crate::extract::Query;
use crate::messages::Octets;
use crate::{Desk, now};

/// Where files are uploaded.
pub const PATH: &str = "/v1/files";

/// For so long a file waits to be used.
const KEPT_MS: i64 = 24 * 3_600_000;

/// What the file is called.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Named {
    /// The file's name, without any path.
    name: String,
}

/// A file that is here, to be named in a reply's `attachments`.
#[derive(Serialize, ToSchema)]
#[schema(as = File)]
pub struct FileView {
    /// Names its bytes: lower-case hexadecimal.
    sha256: String,
    name: String,
    /// What its bytes are, whatever was declared.
    media_type: String,
    size_bytes: u64,
}

/// Takes a file: the body is its bytes, as they are.
///
/// Kept for a day, and for as long as a message has it. The same bytes are the same file.
#[utoipa::path(post, path = "/v1/files", operation_id = "upload_file", tag = "files",
    params(Named),
    request_body(content = Octets, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "Kept", body = FileView),
        (status = 413, description = "Larger than `[files] max_bytes`", body = Problem),
        (status = 422, description = "Of a type that is not taken", body = Problem),
        Problems,
    ))]
pub async fn upload(
    State(desk): State<Desk>,
    Query(Named { name }): Query<Named>,
    request: Request,
) -> Result<(StatusCode, Json<FileView>), Error> {
    let declared = request.headers().get(header::CONTENT_TYPE);
    let declared = declared
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let bytes = read(request.into_body(), desk.limits.max_bytes).await?;
    let media_type = desk
        .limits
        .check(&bytes, &declared)
        .map_err(|reason| Error::invalid("file_not_taken", reason))?;
    let size_bytes = bytes.len() as u64;
    let sha256 = desk.blobs.put(bytes.into()).await?;
    let now = now();
    desk.store.note_removal(&sha256, now, now.plus_ms(KEPT_MS)).await?;
    let view = FileView {
        sha256,
        name: file::safe_name(&name),
        media_type,
        size_bytes,
    };
    Ok((StatusCode::CREATED, Json(view)))
}

async fn read(body: Body, max_bytes: u64) -> Result<Bytes, Error> {
    let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let is_too_long = std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("limit"));
        match is_too_long {
            true => Error::Refused {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                code: "too_large",
                detail: format!("a file must not be larger than {max_bytes} bytes"),
            },
            false => Error::bad_request("unreadable_body", "the body could not be read to its end"),
        }
    })
}

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
