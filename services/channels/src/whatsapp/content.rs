//! What a message of WhatsApp says: each kind in words, files and fields. Words
//! that are ours, not the customer's, stand in brackets.

use std::collections::BTreeMap;

use model::event::Attachment;
use serde_json::Value;

use crate::media::file_name;
use crate::meta::errors::told;
use crate::meta::text;

/// Files come one a message.
const MEDIA: [&str; 5] = ["image", "video", "audio", "sticker", "document"];
/// Of contacts and ordered things, so many are written out.
const MAX_LISTED: usize = 50;

/// What is said.
#[derive(Default)]
pub struct Content {
    pub text: String,
    pub attachments: Vec<Attachment>,
    pub fields: BTreeMap<String, String>,
}

/// The content of a message of this kind.
pub fn of(kind: &str, message: &Value) -> Content {
    let body = &message[kind];
    let mut content = match kind {
        "text" => Content::said(text(body, "/body").unwrap_or_default()),
        kind if MEDIA.contains(&kind) => media(kind, body),
        "location" => location(body),
        "contacts" => Content::said(&listed(body, contact)),
        "interactive" => interactive(body),
        "button" => chosen(text(body, "/text"), text(body, "/payload")),
        "order" => order(body),
        "system" => Content::said(text(body, "/body").unwrap_or("[the user's identity has changed]")),
        "unsupported" => unsupported(message),
        other => Content::said(&format!("[a message of the kind \"{other}\", which is not shown here]")),
    };
    content.refer(&message["referral"]);
    content.product(&message["context"]["referred_product"]);
    content
}

impl Content {
    fn said(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    fn field(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.fields.insert(name.to_owned(), value.to_owned());
        }
    }

    /// The advertisement by which they came.
    fn refer(&mut self, referral: &Value) {
        for name in ["source_url", "source_type", "source_id", "headline", "ctwa_clid"] {
            self.field(&format!("referral.{name}"), text(referral, &format!("/{name}")));
        }
    }

    /// The product that they ask about.
    fn product(&mut self, product: &Value) {
        for name in ["catalog_id", "product_retailer_id"] {
            self.field(&format!("product.{name}"), text(product, &format!("/{name}")));
        }
    }
}

fn media(kind: &str, body: &Value) -> Content {
    let mut content = Content::said(text(body, "/caption").unwrap_or_default());
    let media_type = text(body, "/mime_type").unwrap_or("application/octet-stream");
    match text(body, "/id") {
        Some(id) => {
            let name = text(body, "/filename").map_or_else(|| file_name(kind, media_type), str::to_owned);
            content.attachments.push(Attachment::at(name, media_type, id));
        }
        None => {
            content.text = format!(
                "[a file of the kind \"{kind}\" that WhatsApp does not hand on] {}",
                content.text
            )
        }
    }
    content
}

/// Where, in words, and as fields for whoever shows a map.
fn location(body: &Value) -> Content {
    let mut content = Content::default();
    let mut lines: Vec<String> = Vec::new();
    for name in ["name", "address", "url"] {
        lines.extend(text(body, &format!("/{name}")).map(str::to_owned));
    }
    if let (Some(latitude), Some(longitude)) = (body["latitude"].as_f64(), body["longitude"].as_f64()) {
        lines.push(format!("{latitude}, {longitude}"));
        content.field("location.latitude", Some(&latitude.to_string()));
        content.field("location.longitude", Some(&longitude.to_string()));
    }
    content.text = format!("[location] {}", lines.join("\n"));
    content
}

fn listed(values: &Value, line: impl Fn(&Value) -> String) -> String {
    let lines = values.as_array().into_iter().flatten().take(MAX_LISTED).map(line);
    lines.collect::<Vec<_>>().join("\n")
}

fn contact(contact: &Value) -> String {
    let name = text(contact, "/name/formatted_name").unwrap_or("somebody");
    let mut parts = vec![format!("[contact] {name}")];
    for (list, field) in [("phones", "/phone"), ("emails", "/email"), ("urls", "/url")] {
        let found = contact[list].as_array().into_iter().flatten();
        parts.extend(
            found
                .filter_map(|one| text(one, field))
                .take(MAX_LISTED)
                .map(str::to_owned),
        );
    }
    parts.extend(text(contact, "/org/company").map(str::to_owned));
    parts.join(", ")
}

fn interactive(body: &Value) -> Content {
    let kind = text(body, "/type").unwrap_or_default();
    match kind {
        "button_reply" | "list_reply" => {
            let answer = &body[kind];
            chosen(text(answer, "/title"), text(answer, "/id"))
        }
        "nfm_reply" => form(&body[kind]),
        other => Content::said(&format!("[an answer of the kind \"{other}\"]")),
    }
}

/// A button or a line of a list: what it says, and what it means to whoever made it.
fn chosen(title: Option<&str>, id: Option<&str>) -> Content {
    let mut content = Content::said(title.or(id).unwrap_or_default());
    content.field("button", id);
    content
}

/// What was filled into a form (a Flow).
fn form(answer: &Value) -> Content {
    let mut content = Content::said(text(answer, "/body").unwrap_or("[a form]"));
    let filled = text(answer, "/response_json").and_then(|json| serde_json::from_str::<Value>(json).ok());
    for (name, value) in filled.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Null => continue,
            other => other.to_string(),
        };
        // Meta's own, a token of the form.
        if name != "flow_token" {
            content.field(name, Some(&value));
        }
    }
    content
}

fn order(body: &Value) -> Content {
    let item = |item: &Value| {
        let product = text(item, "/product_retailer_id").unwrap_or("?");
        let currency = text(item, "/currency").unwrap_or_default();
        format!("{} × {product} at {} {currency}", item["quantity"], item["item_price"])
    };
    let said = text(body, "/text").unwrap_or_default();
    let mut content = Content::said(&format!("[order] {said}\n{}", listed(&body["product_items"], item)));
    content.field("product.catalog_id", text(body, "/catalog_id"));
    content
}

fn unsupported(message: &Value) -> Content {
    let kind = text(message, "/unsupported/type").unwrap_or("unknown");
    let why = message["errors"].get(0).map(told).unwrap_or_default();
    let said = format!("[a message of the kind \"{kind}\" that WhatsApp does not hand on] {why}");
    Content::said(said.trim_end())
}
