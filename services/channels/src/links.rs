//! Links to files of ours that a vendor fetches and hands on: signed, for one file
//! and one name, and good for a day. Whoever has the link has the file, as with
//! the vendor's own links afterwards.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::get;
use model::event::Attachment;
use model::file::safe_name;
use model::time::Moment;

use crate::gateway::not_found;
use crate::list::Surroundings;
use crate::signature::Keys;

/// Vendors fetch at once, and again while they try to deliver.
const GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

const PURPOSE: &str = "public-file";

/// Makes links.
pub struct Links {
    keys: Keys,
    public_url: String,
}

impl Links {
    /// Links to the public address of this installation.
    pub fn new(surroundings: &Surroundings) -> Self {
        Self {
            keys: surroundings.keys.clone(),
            public_url: surroundings.public_url.clone(),
        }
    }

    /// A link to each of these files.
    pub fn of(&self, files: &[Attachment]) -> Vec<String> {
        self.lasting(files, GOOD_FOR)
    }

    /// The same for whoever opens it later than that: it is good for so long.
    pub fn lasting(&self, files: &[Attachment], good_for: Duration) -> Vec<String> {
        let until = Moment::from(SystemTime::now() + good_for).as_ms() / 1000;
        files.iter().map(|file| self.until(file, until)).collect()
    }

    fn until(&self, file: &Attachment, until_s: i64) -> String {
        let name = safe_name(&file.name);
        let mac = self.keys.sign(PURPOSE, signed(&file.sha256, until_s, &name).as_bytes());
        let mut url = format!("{}/files/{}/{until_s}/{mac}/", self.public_url, file.sha256);
        for byte in name.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => url.push(char::from(byte)),
                other => url.push_str(&format!("%{other:02X}")),
            }
        }
        url
    }
}

struct Files {
    keys: Keys,
    blobs: bus::Blobs,
}

/// Serves what links lead to, on the public listener.
pub fn routes(keys: Keys, blobs: bus::Blobs) -> Router {
    Router::new()
        .route("/files/{sha256}/{until}/{mac}/{name}", get(serve))
        .with_state(Arc::new(Files { keys, blobs }))
}

/// A link that is wrong, old, or of a file that is gone: all the same to strangers.
async fn serve(
    State(files): State<Arc<Files>>,
    Path((sha256, until_s, mac, name)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let Ok(until_s) = until_s.parse::<i64>() else {
        return not_found().await;
    };
    let is_ours = files
        .keys
        .verify(PURPOSE, signed(&sha256, until_s, &name).as_bytes(), &mac);
    let is_good = Moment::from(SystemTime::now()) <= Moment::from_ms(until_s.saturating_mul(1000));
    if !is_ours || !is_good {
        return not_found().await;
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    match files.blobs.serve(&sha256, &name, range).await {
        Ok(Some(served)) => {
            let status = StatusCode::from_u16(served.status).unwrap_or(StatusCode::OK);
            (status, AppendHeaders(served.headers), Body::from_stream(served.bytes)).into_response()
        }
        Ok(None) => not_found().await,
        Err(error) => {
            tracing::warn!(%error, "a file could not be served");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

fn signed(sha256: &str, until_s: i64, name: &str) -> String {
    format!("{sha256}\n{until_s}\n{name}")
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::extract::Request;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn only_a_link_of_ours_leads_to_its_file_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = bus::Blobs::open(&format!("file:{}", folder.path().display())).unwrap();
        let bytes = b"\x89PNG\r\n\x1a\n....".to_vec();
        let file = Attachment::here("größe 1.png", "image/png", &bytes);
        blobs.put(bytes.clone()).await.unwrap();
        let keys = |byte: u8| Keys::new(vec![vec![byte; 32]]).unwrap();
        let links = |byte: u8| Links {
            keys: keys(byte),
            public_url: String::new(),
        };
        let routes = routes(keys(1), blobs);
        let get = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = routes.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            let media_type = head.headers.get(header::CONTENT_TYPE).cloned().unwrap();
            let body = to_bytes(body, 10_000).await.unwrap();
            (
                head.status.as_u16(),
                media_type.to_str().unwrap().to_owned(),
                body.to_vec(),
            )
        };
        let good = links(1).of(std::slice::from_ref(&file)).remove(0);
        assert_eq!(get(&good).await, (200, "image/png".to_owned(), bytes));
        let other = Attachment {
            sha256: "0".repeat(64),
            ..file.clone()
        };
        let bad = [
            good.replace(".png", ".exe"),
            good.replace(&file.sha256, &other.sha256),
            links(2).of(std::slice::from_ref(&file)).remove(0),
            links(1).until(&file, 1_000_000_000),
            links(1).until(&other, 9_000_000_000),
            "/files/a/b/c/d".to_owned(),
        ];
        for path in bad {
            assert_eq!(get(&path).await.0, 404, "{path}");
        }
    }
}
