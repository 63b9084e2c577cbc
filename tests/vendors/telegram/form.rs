//! What a call of the Bot API carries: JSON, or a form with files.

use std::collections::BTreeMap;

use serde_json::Value;

/// A file of a form.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    pub field: String,
    pub name: String,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// Fields, and the file if there is one.
pub type Fields = (BTreeMap<String, Value>, Option<File>);

/// Reads what was sent; `None` if it is neither.
pub fn read(content_type: &str, body: &[u8]) -> Option<Fields> {
    if content_type.starts_with("application/json") {
        return Some((serde_json::from_slice(body).ok()?, None));
    }
    if content_type.starts_with("application/x-www-form-urlencoded") {
        let form = crate::vendors::twilio::form_of(body);
        let fields = form.0.into_iter().map(|(name, value)| (name, Value::String(value)));
        return Some((fields.collect(), None));
    }
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=")?;
    multipart(boundary.trim_matches('"'), body)
}

/// RFC 7578.
fn multipart(boundary: &str, body: &[u8]) -> Option<Fields> {
    let (mut fields, mut file) = (BTreeMap::new(), None);
    let delimiter = format!("--{boundary}");
    let mut rest = after(body, delimiter.as_bytes())?;
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let end = find(part, format!("\r\n{delimiter}").as_bytes())?;
        let head_end = find(part, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&part[..head_end]).ok()?;
        let content = part.get(head_end + 4..end)?;
        let name = parameter(head, "name")?;
        match parameter(head, "filename") {
            Some(file_name) => {
                let media_type = head.lines().find_map(|line| line.strip_prefix("Content-Type: "));
                file = Some(File {
                    field: name,
                    name: file_name,
                    media_type: media_type.unwrap_or_default().to_owned(),
                    bytes: content.to_vec(),
                });
            }
            None => {
                let text = String::from_utf8(content.to_vec()).ok()?;
                fields.insert(name, Value::String(text));
            }
        }
        rest = &part[end + 2 + delimiter.len()..];
    }
    rest.starts_with(b"--").then_some((fields, file))
}

fn parameter(head: &str, name: &str) -> Option<String> {
    let line = head
        .lines()
        .find(|line| line.to_lowercase().starts_with("content-disposition:"))?;
    let from = line.find(&format!("; {name}=\""))? + name.len() + 4;
    let value = &line[from..];
    Some(value[..value.find('"')?].to_owned())
}

fn after<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    find(bytes, needle).map(|at| &bytes[at + needle.len()..])
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
