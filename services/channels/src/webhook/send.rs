//! Posts an answer to the account's `deliver_url`, signed by Standard Webhooks.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::error::chain;
use model::outbound::Outbound;
use model::time::Moment;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use tokio::time::timeout;

use super::Target;
use crate::channel::Sent;
use crate::guard::read_body;
use crate::limit::retry_after;

/// Of an answer to us, so much is looked at.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// For what stands behind the status, which says all that matters.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Post<'a> {
    r#type: &'static str,
    id: &'a str,
    conversation_id: &'a str,
    thread: &'a str,
    /// The `webhook-id` of the message that this one answers.
    in_reply_to: Option<&'a str>,
    to: Vec<&'a str>,
    subject: Option<&'a str>,
    text: &'a str,
    html: Option<&'a str>,
    attachments: Vec<File<'a>>,
    automatic: bool,
    created_at: Moment,
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    media_type: &'a str,
    content: String,
}

/// One attempt. A repeat carries the same `webhook-id`, so a receiver that has
/// it already can tell; that is why an unknown outcome is simply tried again.
pub async fn send(target: &Target, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
    let id = outbound.message_id.as_str();
    let body = match serde_json::to_vec(&post(outbound, files)) {
        Ok(body) => body,
        Err(error) => return refused(format!("the message cannot be written as JSON: {error}")),
    };
    let mut request = match target.http.post(&target.url) {
        Ok(request) => request.header(CONTENT_TYPE, "application/json"),
        Err(error) => return refused(error),
    };
    for (name, value) in target.secret.sign(id, SystemTime::now().into(), &body) {
        request = request.header(name, value);
    }
    match request.body(body).send().await {
        Ok(response) => outcome(id, response).await,
        Err(error) => Sent::Later {
            after: None,
            error: chain(&error.without_url()),
        },
    }
}

fn post<'a>(outbound: &'a Outbound, files: &[Vec<u8>]) -> Post<'a> {
    let attachments = outbound.attachments.iter().zip(files);
    Post {
        r#type: "message.created",
        id: outbound.message_id.as_str(),
        conversation_id: outbound.conversation_id.as_str(),
        thread: &outbound.thread,
        in_reply_to: outbound.references.last().map(String::as_str),
        to: outbound.recipients.iter().map(|to| to.address.as_str()).collect(),
        subject: outbound.subject.as_deref(),
        text: &outbound.text,
        html: outbound.html.as_deref(),
        attachments: attachments
            .map(|(attachment, bytes)| File {
                name: &attachment.name,
                media_type: &attachment.media_type,
                content: STANDARD.encode(bytes),
            })
            .collect(),
        automatic: outbound.automatic,
        created_at: outbound.created_at,
    }
}

async fn outcome(id: &str, mut response: reqwest::Response) -> Sent {
    let status = response.status();
    let after = retry_after(response.headers());
    // The connection is used again only if its answer was read.
    let _ = timeout(ANSWER_TIMEOUT, read_body(&mut response, MAX_ANSWER_BYTES)).await;
    let error = format!("the receiver answered {status}");
    match status {
        status if status.is_success() => Sent::Accepted {
            external_ids: vec![id.to_owned()],
        },
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Sent::Later { after, error }
        }
        status if status.is_server_error() => Sent::Later { after, error },
        // Also redirects: they are not followed.
        _ => refused(error),
    }
}

fn refused(error: String) -> Sent {
    Sent::Refused { error }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_lc_rs::digest::{SHA256, digest};
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::response::{IntoResponse, Response};
    use model::event::{Attachment, Recipient};
    use model::id::{ConversationId, MessageId};
    use serde_json::json;

    use super::*;
    use crate::guard::Guard;
    use crate::signature::WebhookSecret;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    /// What a receiver answers, and what it got.
    #[derive(Clone, Default)]
    struct Receiver {
        answer: Arc<Mutex<(u16, Option<&'static str>)>>,
        got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    }

    impl Receiver {
        /// Listens, and gives the target that leads to it.
        async fn listen(&self) -> Target {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/answers", listener.local_addr().unwrap());
            let router = axum::Router::new().fallback(receive).with_state(self.clone());
            tokio::spawn(async move { axum::serve(listener, router).await });
            let http = Guard::new(true).unwrap();
            Target {
                url: http.url(&url).unwrap(),
                secret: WebhookSecret::parse(SECRET).unwrap(),
                http,
            }
        }
    }

    async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
        receiver.got.lock().unwrap().push((headers, body));
        let (status, retry_after) = *receiver.answer.lock().unwrap();
        let mut response = (axum::http::StatusCode::from_u16(status).unwrap(), "x".repeat(100_000)).into_response();
        if let Some(value) = retry_after {
            response.headers_mut().insert("retry-after", value.parse().unwrap());
        }
        response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
        response
    }

    fn outbound() -> Outbound {
        let message_id = MessageId::authored("ann", "1");
        Outbound {
            conversation_id: ConversationId::begun_by(&message_id),
            message_id,
            account: "shop".to_owned(),
            thread: "order-17".to_owned(),
            recipients: vec![Recipient {
                role: "to".to_owned(),
                address: "bob@example.com".to_owned(),
                name: None,
            }],
            subject: None,
            text: "On its way – soon.".to_owned(),
            html: Some("<p>On its way</p>".to_owned()),
            attachments: vec![Attachment::here("größe.txt", "text/plain", b"hello")],
            references: vec!["evt_0".to_owned(), "evt_1".to_owned()],
            quotes: None,
            template: None,
            automatic: true,
            created_at: Moment::from_ms(1_767_225_600_000),
        }
    }

    /// RFC 2104, by its definition, to check our signature by other means.
    fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
        let pad = |byte: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ byte).collect() };
        let inner = digest(&SHA256, &[pad(0x36).as_slice(), text].concat());
        digest(&SHA256, &[pad(0x5c).as_slice(), inner.as_ref()].concat())
            .as_ref()
            .to_vec()
    }

    #[tokio::test]
    async fn an_answer_is_posted_and_signed() {
        let receiver = Receiver::default();
        *receiver.answer.lock().unwrap() = (204, None);
        let target = receiver.listen().await;
        let outbound = outbound();
        let id = outbound.message_id.as_str();
        let sent = send(&target, &outbound, &[b"hello".to_vec()]).await;
        assert_eq!(
            sent,
            Sent::Accepted {
                external_ids: vec![id.to_owned()]
            }
        );
        let (headers, body) = receiver.got.lock().unwrap().remove(0);
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(
            (header("webhook-id").as_str(), header("content-type").as_str()),
            (id, "application/json")
        );
        let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
        let timestamp = header("webhook-timestamp");
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body.as_ref()].concat();
        assert_eq!(
            header("webhook-signature"),
            format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &signed)))
        );
        let now: Moment = SystemTime::now().into();
        assert!((now.as_ms() / 1000 - timestamp.parse::<i64>().unwrap()).abs() < 60);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "type": "message.created",
            "id": id,
            "conversation_id": outbound.conversation_id.as_str(),
            "thread": "order-17",
            "in_reply_to": "evt_1",
            "to": ["bob@example.com"],
            "subject": null,
            "text": "On its way – soon.",
            "html": "<p>On its way</p>",
            "attachments": [{"name": "größe.txt", "media_type": "text/plain", "content": "aGVsbG8="}],
            "automatic": true,
            "created_at": "2026-01-01T00:00:00.000Z",
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn the_receivers_answer_says_what_becomes_of_it() {
        let receiver = Receiver::default();
        let target = receiver.listen().await;
        let check = async |status: u16, retry_after: Option<&'static str>, expected: &str| {
            *receiver.answer.lock().unwrap() = (status, retry_after);
            let found = match send(&target, &outbound(), &[]).await {
                Sent::Accepted { .. } => "accepted".to_owned(),
                Sent::Refused { .. } => "refused".to_owned(),
                Sent::Later { after, .. } => format!("later {:?}", after.map(|after| after.as_secs())),
                Sent::Broken { .. } => "broken".to_owned(),
                Sent::Unknown { .. } => "unknown".to_owned(),
            };
            assert_eq!(found, expected, "{status} {retry_after:?}");
        };
        check(200, None, "accepted").await;
        check(202, None, "accepted").await;
        check(301, None, "refused").await;
        check(307, None, "refused").await;
        check(400, None, "refused").await;
        check(404, None, "refused").await;
        check(408, None, "later None").await;
        check(409, None, "later None").await;
        check(410, None, "refused").await;
        check(425, None, "later None").await;
        check(429, Some("7"), "later Some(7)").await;
        check(429, Some("Wed, 21 Oct 2026 07:28:00 GMT"), "later None").await;
        check(500, None, "later None").await;
        check(503, Some("99999999999"), "later Some(86400)").await;
        // Nothing followed the redirects.
        assert_eq!(receiver.got.lock().unwrap().len(), 14);
    }

    #[tokio::test]
    async fn what_never_ends_behind_the_status_holds_nothing_up() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let holding = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx";
            stream.write_all(answer).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let http = Guard::new(true).unwrap();
        let target = Target {
            url: http.url(&url).unwrap(),
            secret: WebhookSecret::parse(SECRET).unwrap(),
            http,
        };
        let begun = std::time::Instant::now();
        let sent = send(&target, &outbound(), &[b"hello".to_vec()]).await;
        assert!(matches!(sent, Sent::Accepted { .. }), "{sent:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        holding.await.unwrap();
    }

    #[tokio::test]
    async fn a_receiver_that_is_away_or_private_is_tried_later() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let check = async |allow_private: bool, expected: &str| {
            let http = Guard::new(allow_private).unwrap();
            let target = Target {
                url: http.url(&format!("http://localhost:{port}/token-in-path")).unwrap(),
                secret: WebhookSecret::parse(SECRET).unwrap(),
                http,
            };
            match send(&target, &outbound(), &[]).await {
                Sent::Later { after: None, error } => {
                    assert!(error.contains(expected) && !error.contains("token"), "{error}");
                }
                other => panic!("{other:?}"),
            }
        };
        check(true, "refused").await;
        check(false, "private").await;
    }
}
