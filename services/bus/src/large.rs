//! What is too large for a record becomes blobs, before the event is published.
//!
//! Nothing is cut away: the raw bytes go first, then the HTML and the text as
//! attachments of the message. A message that is too large even then (a
//! hundred thousand recipients) is parked, and lies whole in a blob.

use model::event::{Attachment, Body, Event, Message, Raw, RawContent};

use crate::wire::{self, Encoded};
use crate::{Blobs, Error};

/// Brokers and librdkafka refuse records over 1 MB unless told otherwise; the
/// rest is room for what the protocol adds.
pub(crate) const RECORD_MAX_BYTES: usize = 900 * 1024;

/// For a broker that refuses even those.
const SMALL_RECORD_MAX_BYTES: usize = 48 * 1024;

/// How much of a text stays in the message when the whole becomes an attachment.
const TEXT_KEPT_BYTES: usize = 8 * 1024;

/// The record of this event, at most `max_bytes` large.
pub(crate) async fn encode(mut event: Event, blobs: &Blobs, max_bytes: usize) -> Result<Encoded, Error> {
    if inline_bytes(&event.raw) > Raw::INLINE_MAX_BYTES {
        keep_raw(&mut event.raw, blobs).await?;
    }
    let whole = wire::encode(event);
    if whole.size_bytes() <= max_bytes {
        return Ok(whole);
    }
    shrink(whole, blobs, max_bytes).await
}

/// A smaller record of the same event, for a broker that refused it.
pub(crate) async fn reduce(record: Encoded, reason: &str, blobs: &Blobs) -> Result<Encoded, Error> {
    tracing::warn!(reason, "kafka refused an event, it is made smaller");
    if record.size_bytes() <= SMALL_RECORD_MAX_BYTES {
        return Ok(record);
    }
    shrink(record, blobs, SMALL_RECORD_MAX_BYTES).await
}

async fn shrink(whole: Encoded, blobs: &Blobs, max_bytes: usize) -> Result<Encoded, Error> {
    let mut event = wire::decode(&whole.value).map_err(|undecodable| Error::Malformed(undecodable.reason))?;
    keep_raw(&mut event.raw, blobs).await?;
    if let Some(record) = fitting(&event, max_bytes) {
        return Ok(record);
    }
    if let Body::MessageReceived(message) = &mut event.body {
        keep_html(message, blobs).await?;
    }
    if let Some(record) = fitting(&event, max_bytes) {
        return Ok(record);
    }
    if let Body::MessageReceived(message) = &mut event.body {
        keep_text(message, blobs).await?;
    }
    if let Some(record) = fitting(&event, max_bytes) {
        return Ok(record);
    }
    let sha256 = blobs.put(whole.value).await?;
    Ok(wire::encode(parked(event, &sha256)))
}

fn fitting(event: &Event, max_bytes: usize) -> Option<Encoded> {
    let record = wire::encode(event.clone());
    (record.size_bytes() <= max_bytes).then_some(record)
}

fn inline_bytes(raw: &Raw) -> usize {
    match &raw.content {
        RawContent::Inline(bytes) => bytes.len(),
        RawContent::Blob { .. } => 0,
    }
}

async fn keep_raw(raw: &mut Raw, blobs: &Blobs) -> Result<(), Error> {
    if let RawContent::Inline(bytes) = &mut raw.content {
        let size_bytes = bytes.len() as u64;
        let sha256 = blobs.put(std::mem::take(bytes)).await?;
        raw.content = RawContent::Blob { sha256, size_bytes };
    }
    Ok(())
}

async fn keep_html(message: &mut Message, blobs: &Blobs) -> Result<(), Error> {
    if let Some(html) = message.html.take() {
        let attachment = attach("message.html", "text/html; charset=utf-8", html, blobs).await?;
        message.attachments.push(attachment);
    }
    Ok(())
}

async fn keep_text(message: &mut Message, blobs: &Blobs) -> Result<(), Error> {
    if message.text.len() > TEXT_KEPT_BYTES {
        let kept = leading(&message.text, TEXT_KEPT_BYTES).to_owned();
        let text = std::mem::replace(&mut message.text, kept);
        let attachment = attach("message.txt", "text/plain; charset=utf-8", text, blobs).await?;
        message.attachments.push(attachment);
    }
    Ok(())
}

async fn attach(name: &str, media_type: &str, content: String, blobs: &Blobs) -> Result<Attachment, Error> {
    let attachment = Attachment::here(name, media_type, content.as_bytes());
    blobs.put(content.into_bytes()).await?;
    Ok(attachment)
}

/// Under the same id, so that a repeat parks the same input. The raw bytes are
/// a blob already.
fn parked(event: Event, sha256: &str) -> Event {
    let headers_bytes: usize = event
        .raw
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let headers = if headers_bytes > TEXT_KEPT_BYTES {
        Vec::new()
    } else {
        event.raw.headers
    };
    Event {
        thread_key: leading(&event.thread_key, 256).to_owned(),
        traceparent: event.traceparent.filter(|text| text.len() <= 256),
        raw: Raw {
            url: leading(&event.raw.url, TEXT_KEPT_BYTES).to_owned(),
            method: leading(&event.raw.method, 256).to_owned(),
            headers,
            ..event.raw
        },
        body: Body::Parked {
            reason: format!("too large for a record; the event lies whole in the blob {sha256}"),
        },
        ..event
    }
}

/// At most this many bytes, whole characters.
fn leading(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}
