//! An event's fields, there and back.

use data_encoding::HEXLOWER;
use model::change::{Call, CallState, Change, MessageChange, Reacting};
use model::contact::Party;
use model::event::{
    Attachment, Automatic, Body, ConsentChange, DeliveryReport, DeliveryState, Event, Message, Raw, RawContent,
    Recipient, Watermark,
};
use model::evidence::{Evidence, Opened};
use model::id::{ConversationId, MessageId};
use model::time::Moment;

use super::proto::conversation::v1 as pb;
use super::proto::google::protobuf as wkt;

/// The event as protobuf knows it.
pub(super) fn event_to_proto(event: Event) -> pb::Event {
    let body = match event.body {
        Body::MessageReceived(message) => pb::event::Body::MessageReceived(Box::new(message_to_proto(*message))),
        Body::DeliveryReported(report) => pb::event::Body::DeliveryReported(pb::DeliveryReported {
            external_id: report.external_id,
            state: report.state.as_str().to_owned(),
            error: report.error,
        }),
        Body::MessageChanged(change) => pb::event::Body::MessageChanged(change_to_proto(*change)),
        Body::ConsentChanged(consent) => pb::event::Body::ConsentChanged(pb::ConsentChanged {
            thread: consent.thread,
            given: consent.given,
            reason: consent.reason,
        }),
        Body::WatermarkMoved(watermark) => pb::event::Body::WatermarkMoved(pb::WatermarkMoved {
            thread: watermark.thread,
            until: Some(moment_to_proto(watermark.until)),
            state: watermark.state.as_str().to_owned(),
        }),
        Body::AccountBroken { reason } => pb::event::Body::AccountBroken(pb::AccountBroken { reason }),
        Body::Parked { reason } => pb::event::Body::Parked(pb::Parked { reason }),
        Body::Quarantined { reason } => pb::event::Body::Quarantined(pb::Quarantined { reason }),
    };
    pb::Event {
        id: event.id,
        account: event.account,
        channel: event.channel,
        thread_key: event.thread_key,
        occurred_at: Some(moment_to_proto(event.occurred_at)),
        received_at: Some(moment_to_proto(event.received_at)),
        provider_sequence: event.provider_sequence,
        traceparent: event.traceparent,
        raw: Some(raw_to_proto(event.raw)),
        body: Some(body),
    }
}

/// The event, or why it is none.
pub(super) fn event_from_proto(event: pb::Event) -> Result<Event, String> {
    let body = body_from_proto(event.body.ok_or("no body, or one of a newer version")?)?;
    let id_is_right = match body {
        Body::MessageReceived(_) => MessageId::parse(&event.id).is_some(),
        Body::DeliveryReported(_)
        | Body::MessageChanged(_)
        | Body::ConsentChanged(_)
        | Body::WatermarkMoved(_)
        | Body::AccountBroken { .. }
        | Body::Parked { .. }
        | Body::Quarantined { .. } => is_event_id(&event.id),
    };
    if !id_is_right {
        return Err("the id has not the form of its kind".to_owned());
    }
    if event.account.is_empty() || event.channel.is_empty() {
        return Err("no account or no channel".to_owned());
    }
    Ok(Event {
        id: event.id,
        account: event.account,
        channel: event.channel,
        thread_key: event.thread_key,
        occurred_at: moment_from_proto(event.occurred_at)?,
        received_at: moment_from_proto(event.received_at)?,
        provider_sequence: event.provider_sequence,
        traceparent: event.traceparent,
        raw: raw_from_proto(event.raw.ok_or("no raw input")?)?,
        body,
    })
}

/// `evt_…`, or the id of a message that could not be parsed or applied.
fn is_event_id(id: &str) -> bool {
    let is_plain = |rest: &str| {
        !rest.is_empty()
            && rest.len() <= 64
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    MessageId::parse(id).is_some() || id.strip_prefix("evt_").is_some_and(is_plain)
}

fn body_from_proto(body: pb::event::Body) -> Result<Body, String> {
    Ok(match body {
        pb::event::Body::MessageReceived(message) => Body::MessageReceived(Box::new(message_from_proto(*message)?)),
        pb::event::Body::DeliveryReported(report) => Body::DeliveryReported(DeliveryReport {
            external_id: report.external_id,
            state: DeliveryState::parse(&report.state).ok_or("unknown delivery state")?,
            error: report.error,
        }),
        pb::event::Body::MessageChanged(change) => Body::MessageChanged(Box::new(change_from_proto(change)?)),
        pb::event::Body::ConsentChanged(consent) => Body::ConsentChanged(ConsentChange {
            thread: consent.thread,
            given: consent.given,
            reason: consent.reason,
        }),
        pb::event::Body::WatermarkMoved(watermark) => Body::WatermarkMoved(Watermark {
            thread: watermark.thread,
            until: moment_from_proto(watermark.until)?,
            state: DeliveryState::parse(&watermark.state).ok_or("unknown delivery state")?,
        }),
        pb::event::Body::AccountBroken(broken) => Body::AccountBroken { reason: broken.reason },
        pb::event::Body::Parked(parked) => Body::Parked { reason: parked.reason },
        pb::event::Body::Quarantined(quarantined) => Body::Quarantined {
            reason: quarantined.reason,
        },
    })
}

fn raw_to_proto(raw: Raw) -> pb::Raw {
    let content = match raw.content {
        RawContent::Inline(bytes) => pb::raw::Content::Inline(bytes),
        RawContent::Blob { sha256, size_bytes } => pb::raw::Content::Blob(pb::Blob { sha256, size_bytes }),
    };
    pb::Raw {
        content: Some(content),
        method: raw.method,
        url: raw.url,
        headers: raw
            .headers
            .into_iter()
            .map(|(name, value)| pb::Header { name, value })
            .collect(),
    }
}

fn raw_from_proto(raw: pb::Raw) -> Result<Raw, String> {
    let content = match raw.content.ok_or("no raw content")? {
        pb::raw::Content::Inline(bytes) => RawContent::Inline(bytes),
        pb::raw::Content::Blob(blob) => RawContent::Blob {
            sha256: sha256_from_proto(blob.sha256)?,
            size_bytes: blob.size_bytes,
        },
    };
    Ok(Raw {
        content,
        method: raw.method,
        url: raw.url,
        headers: raw
            .headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect(),
    })
}

fn message_to_proto(message: Message) -> pb::MessageReceived {
    pb::MessageReceived {
        sender: Some(party_to_proto(message.sender)),
        recipients: message.recipients.into_iter().map(recipient_to_proto).collect(),
        subject: message.subject,
        text: message.text,
        html: message.html,
        attachments: message.attachments.into_iter().map(attachment_to_proto).collect(),
        evidence: Some(evidence_to_proto(message.evidence)),
        automatic: message.automatic.map(|automatic| automatic.as_str().to_owned()),
        suppress_automatic_reply: message.suppress_automatic_reply,
        external_ids: message.external_ids,
        identities: message.identities.into_iter().map(party_to_proto).collect(),
        fields: message.fields.into_iter().collect(),
    }
}

fn message_from_proto(message: pb::MessageReceived) -> Result<Message, String> {
    let sender = message.sender.ok_or("no sender")?;
    let automatic = match message.automatic {
        Some(name) => Some(Automatic::parse(&name).ok_or("unknown automatic mark")?),
        None => None,
    };
    let mut attachments = Vec::with_capacity(message.attachments.len());
    for attachment in message.attachments {
        attachments.push(attachment_from_proto(attachment)?);
    }
    Ok(Message {
        sender: party_from_proto(sender),
        recipients: message.recipients.into_iter().map(recipient_from_proto).collect(),
        subject: message.subject,
        text: message.text,
        html: message.html,
        attachments,
        evidence: evidence_from_proto(message.evidence.unwrap_or_default())?,
        automatic,
        suppress_automatic_reply: message.suppress_automatic_reply,
        external_ids: message.external_ids,
        identities: message.identities.into_iter().map(party_from_proto).collect(),
        fields: message.fields.into_iter().collect(),
    })
}

fn party_to_proto(party: Party) -> pb::Party {
    pb::Party {
        scheme: party.scheme,
        address: party.address,
        name: party.name,
        verified: party.verified,
    }
}

fn party_from_proto(party: pb::Party) -> Party {
    Party {
        scheme: party.scheme,
        address: party.address,
        name: party.name,
        verified: party.verified,
    }
}

fn change_to_proto(change: MessageChange) -> pb::MessageChanged {
    use pb::message_changed::Change as To;
    let to = match change.change {
        Change::Edited { text, html } => To::Edited(pb::Edited { text, html }),
        Change::Deleted => To::Deleted(pb::Deleted {}),
        Change::Reacted { by, emojis, how } => To::Reacted(pb::Reacted {
            by,
            emojis,
            how: how.as_str().to_owned(),
        }),
        Change::Called(call) => To::Called(pb::Called {
            state: call.state.map(|state| state.as_str().to_owned()),
            duration_s: call.duration_s,
            missed: call.missed,
            transcription: call.transcription,
        }),
        Change::AttachmentsAdded { attachments } => To::AttachmentsAdded(pb::AttachmentsAdded {
            attachments: attachments.into_iter().map(attachment_to_proto).collect(),
        }),
    };
    pb::MessageChanged {
        external_id: change.external_id,
        change: Some(to),
    }
}

fn change_from_proto(change: pb::MessageChanged) -> Result<MessageChange, String> {
    use pb::message_changed::Change as From;
    let to = match change.change.ok_or("no change, or one of a newer version")? {
        From::Edited(edited) => Change::Edited {
            text: edited.text,
            html: edited.html,
        },
        From::Deleted(_) => Change::Deleted,
        From::Reacted(reacted) => Change::Reacted {
            by: reacted.by,
            emojis: reacted.emojis,
            how: Reacting::parse(&reacted.how).ok_or("unknown way of reacting")?,
        },
        From::Called(called) => Change::Called(Call {
            state: match called.state {
                Some(name) => Some(CallState::parse(&name).ok_or("unknown state of a call")?),
                None => None,
            },
            duration_s: called.duration_s,
            missed: called.missed,
            transcription: called.transcription,
        }),
        From::AttachmentsAdded(added) => {
            let attachments: Result<_, _> = added.attachments.into_iter().map(attachment_from_proto).collect();
            Change::AttachmentsAdded {
                attachments: attachments?,
            }
        }
    };
    Ok(MessageChange {
        external_id: change.external_id,
        change: to,
    })
}

fn recipient_to_proto(recipient: Recipient) -> pb::Recipient {
    pb::Recipient {
        role: recipient.role,
        address: recipient.address,
        name: recipient.name,
    }
}

fn recipient_from_proto(recipient: pb::Recipient) -> Recipient {
    Recipient {
        role: recipient.role,
        address: recipient.address,
        name: recipient.name,
    }
}

fn attachment_to_proto(attachment: Attachment) -> pb::Attachment {
    pb::Attachment {
        name: attachment.name,
        media_type: attachment.media_type,
        size_bytes: attachment.size_bytes,
        sha256: attachment.sha256,
        content_id: attachment.content_id,
        source: attachment.source,
        lost: attachment.lost,
    }
}

fn attachment_from_proto(attachment: pb::Attachment) -> Result<Attachment, String> {
    let is_elsewhere = attachment.source.is_some() || attachment.lost.is_some();
    let sha256 = match attachment.sha256.is_empty() && is_elsewhere {
        true => attachment.sha256,
        false => sha256_from_proto(attachment.sha256)?,
    };
    Ok(Attachment {
        name: attachment.name,
        media_type: attachment.media_type,
        size_bytes: attachment.size_bytes,
        sha256,
        content_id: attachment.content_id,
        source: attachment.source,
        lost: attachment.lost,
    })
}

fn evidence_to_proto(evidence: Evidence) -> pb::Evidence {
    pb::Evidence {
        signed_messages: evidence.signed_messages.iter().map(ToString::to_string).collect(),
        signed_conversations: evidence.signed_conversations.iter().map(ToString::to_string).collect(),
        quoted_ids: evidence.quoted_ids,
        thread: evidence.thread,
        opened: evidence.opened.map(String::from),
    }
}

fn evidence_from_proto(evidence: pb::Evidence) -> Result<Evidence, String> {
    let mut signed_messages = Vec::new();
    for id in &evidence.signed_messages {
        signed_messages.push(MessageId::parse(id).ok_or("a signed message id has not its form")?);
    }
    let mut signed_conversations = Vec::new();
    for id in &evidence.signed_conversations {
        signed_conversations.push(ConversationId::parse(id).ok_or("a signed conversation id has not its form")?);
    }
    let opened = evidence.opened.map(Opened::try_from).transpose()?;
    Ok(Evidence {
        signed_messages,
        signed_conversations,
        quoted_ids: evidence.quoted_ids,
        thread: evidence.thread,
        opened,
        // Of messages of ours alone, which are no arrivals.
        continues: None,
    })
}

fn sha256_from_proto(text: String) -> Result<String, String> {
    if is_sha256(&text) {
        Ok(text)
    } else {
        Err("a SHA-256 is not 64 lower-case hexadecimal digits".to_owned())
    }
}

/// Whether this is the name of a blob.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && HEXLOWER.decode(text.as_bytes()).is_ok()
}

pub(super) fn moment_to_proto(moment: Moment) -> wkt::Timestamp {
    let ms = moment.as_ms();
    wkt::Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: i32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}

fn moment_from_proto(timestamp: Option<wkt::Timestamp>) -> Result<Moment, String> {
    let timestamp = timestamp.ok_or("no time")?;
    let ms = timestamp
        .seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(timestamp.nanos / 1_000_000));
    let moment = Moment::from_ms(ms);
    if moment.as_ms() == ms {
        Ok(moment)
    } else {
        Err("a time out of range".to_owned())
    }
}
