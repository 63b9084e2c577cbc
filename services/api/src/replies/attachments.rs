//! Files that a reply brings along, checked before anything is kept.

use data_encoding::BASE64;
use model::event::Attachment;
use model::file;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::Desk;
use crate::error::Error;

/// Of one reply.
const MAX_FILES: usize = 50;

/// A file to be sent along.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReplyAttachment)]
pub struct File {
    /// Without any path.
    name: String,
    /// With `content`: what it is. Of an uploaded file its bytes tell.
    #[schema(example = "application/pdf")]
    #[serde(default)]
    media_type: Option<String>,
    /// Base64 (RFC 4648 section 4, padded).
    #[schema(content_encoding = "base64")]
    #[serde(default)]
    content: Option<String>,
    /// Instead of `content`: an uploaded file, or an attachment of another message.
    #[serde(default)]
    sha256: Option<String>,
}

/// What the message says of each file, and its bytes.
pub async fn checked(desk: &Desk, files: Vec<File>) -> Result<Vec<(Attachment, Vec<u8>)>, Error> {
    if files.len() > MAX_FILES {
        return Err(Error::invalid(
            "invalid",
            format!("a reply takes at most {MAX_FILES} attachments"),
        ));
    }
    let mut checked = Vec::new();
    for file in files {
        checked.push(checked_file(desk, file).await?);
    }
    Ok(checked)
}

async fn checked_file(desk: &Desk, file: File) -> Result<(Attachment, Vec<u8>), Error> {
    let is_name = (1..=255).contains(&file.name.len())
        && !matches!(file.name.as_str(), "." | "..")
        && !file
            .name
            .chars()
            .any(|char| char.is_control() || matches!(char, '/' | '\\'));
    if !is_name {
        return Err(Error::invalid(
            "invalid",
            "an attachment's `name` must be a file name without path, of at most 255 bytes",
        ));
    }
    let declared = file.media_type.unwrap_or_default();
    match (file.content, file.sha256) {
        (Some(content), None) => with_content(file.name, &declared, &content),
        (None, Some(sha256)) => uploaded(desk, file.name, &declared, &sha256).await,
        _ => Err(Error::invalid(
            "invalid",
            "an attachment has either `content` or the `sha256` of an uploaded file",
        )),
    }
}

fn with_content(name: String, media_type: &str, content: &str) -> Result<(Attachment, Vec<u8>), Error> {
    if !is_media_type(media_type) {
        return Err(Error::invalid(
            "invalid",
            "an attachment's `media_type` must look like text/plain, without parameters",
        ));
    }
    let bytes = BASE64
        .decode(content.as_bytes())
        .map_err(|_| Error::invalid("invalid", "an attachment's `content` must be base64 with padding"))?;
    let attachment = Attachment::here(name, media_type.to_ascii_lowercase(), &bytes);
    Ok((attachment, bytes))
}

/// Its bytes are kept anew with the reply, so that nobody removes them meanwhile.
async fn uploaded(desk: &Desk, name: String, declared: &str, sha256: &str) -> Result<(Attachment, Vec<u8>), Error> {
    let Some(bytes) = desk.blobs.get(sha256).await? else {
        return Err(Error::invalid(
            "no_such_file",
            "there is no file of this `sha256`: upload it by POST /v1/files, it is kept for a day",
        ));
    };
    let head = &bytes[..bytes.len().min(file::HEAD_BYTES)];
    let attachment = Attachment::here(name, file::true_type(head, declared), &bytes);
    Ok((attachment, bytes))
}

/// RFC 6838 section 4.2.
fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        (1..=127).contains(&name.len())
            && name.starts_with(|char: char| char.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}
