//! Files that a reply brings along, checked before anything is kept.

use data_encoding::BASE64;
use model::event::Attachment;
use serde::Deserialize;
use utoipa::ToSchema;

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
    #[schema(example = "application/pdf")]
    media_type: String,
    /// Base64 (RFC 4648 section 4, padded).
    #[schema(content_encoding = "base64")]
    content: String,
}

/// What the message says of each file, and its bytes.
pub fn checked(files: Vec<File>) -> Result<Vec<(Attachment, Vec<u8>)>, Error> {
    if files.len() > MAX_FILES {
        return Err(Error::invalid(
            "invalid",
            format!("a reply takes at most {MAX_FILES} attachments"),
        ));
    }
    files.into_iter().map(checked_file).collect()
}

fn checked_file(file: File) -> Result<(Attachment, Vec<u8>), Error> {
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
    if !is_media_type(&file.media_type) {
        return Err(Error::invalid(
            "invalid",
            "an attachment's `media_type` must look like text/plain, without parameters",
        ));
    }
    let bytes = BASE64
        .decode(file.content.as_bytes())
        .map_err(|_| Error::invalid("invalid", "an attachment's `content` must be base64 with padding"))?;
    let attachment = Attachment::here(file.name, file.media_type.to_ascii_lowercase(), &bytes);
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
