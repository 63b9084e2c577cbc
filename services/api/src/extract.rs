//! Takes a request apart. What does not fit is refused with what would.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;

/// A part of the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Error))]
pub struct Path<T>(pub T);

/// The parameters behind the question mark.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Error))]
pub struct Query<T>(pub T);

/// A JSON object; an empty body counts as `{}`.
pub struct Body {
    /// As it came: its hash tells a repeat from another request.
    pub bytes: Bytes,
    json: Value,
}

/// What names a request, so that its repeat is known: 1 to 255 visible ASCII characters.
pub struct IdempotencyKey(pub Option<String>);

impl Body {
    /// The object as this type; unknown fields are refused by the type.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Error> {
        serde_json::from_value(self.json).map_err(|error| {
            let (code, detail) = explain(&error.to_string(), "field");
            Error::invalid(code, detail)
        })
    }
}

impl IdempotencyKey {
    /// For requests that must have one.
    pub fn required(self) -> Result<String, Error> {
        self.0.ok_or_else(|| {
            Error::bad_request(
                "idempotency_key_missing",
                "this request needs the header Idempotency-Key: a text of your own that names it, \
                 so that sending it again does nothing twice",
            )
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let is_json = is_json(&request);
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                return too_large();
            }
            Error::bad_request("unreadable_body", "the body could not be read to its end")
        })?;
        if bytes.is_empty() {
            let json = Value::Object(serde_json::Map::new());
            return Ok(Self { bytes, json });
        }
        if !is_json {
            return Err(Error::Refused {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                code: "unsupported_media_type",
                detail: "the body must be application/json".to_owned(),
            });
        }
        let json = parse(&bytes)?;
        Ok(Self { bytes, json })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default();
        let is_plain = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain {
            return Err(Error::bad_request(
                "bad_idempotency_key",
                "Idempotency-Key must be 1 to 255 visible ASCII characters",
            ));
        }
        Ok(Self(Some(text.to_owned())))
    }
}

/// Makes a code and a sentence of what serde says. Of an unknown name it tells
/// the nearest right one.
pub fn explain(message: &str, what: &str) -> (&'static str, String) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let is_unknown = message.contains("unknown field `");
    let Some((unknown, known)) = quoted.split_first().filter(|_| is_unknown) else {
        return ("invalid", shortened(message));
    };
    let unknown = shortened(unknown);
    let nearest = known
        .iter()
        .min_by_key(|name| strsim::damerau_levenshtein(&unknown, name));
    let detail = match nearest {
        Some(nearest) => format!("unknown {what} `{unknown}`; the nearest right one is `{nearest}`"),
        None => format!("unknown {what} `{unknown}`; none is expected here"),
    };
    ("unknown_field", detail)
}

/// 413, for the body and for what is in it.
pub fn too_large() -> Error {
    Error::Refused {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "too_large",
        detail: format!("the body must not be larger than {} bytes", crate::MAX_BODY_BYTES),
    }
}

/// A body without a declared type is taken for JSON.
fn is_json(request: &Request) -> bool {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return true;
    };
    let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

fn parse(bytes: &[u8]) -> Result<Value, Error> {
    let json: Value = serde_json::from_slice(bytes)
        .map_err(|error| Error::bad_request("malformed_json", format!("the body is no JSON: {error}")))?;
    if !json.is_object() {
        return Err(Error::invalid("invalid", "the body must be a JSON object"));
    }
    if holds_nul(&json) {
        return Err(Error::invalid("invalid", "texts must not contain U+0000"));
    }
    Ok(json)
}

/// U+0000 never reaches the store. The parser bounds the depth.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
