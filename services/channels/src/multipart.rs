//! Forms with files, `multipart/form-data` (RFC 7578).

use uuid::Uuid;

/// A form that grows field by field.
pub struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    /// Without fields.
    pub fn new() -> Self {
        Self {
            // Nothing that is sent can hold it by chance.
            boundary: Uuid::new_v4().simple().to_string(),
            body: Vec::new(),
        }
    }

    /// The same with a text.
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.begin(&format!("name=\"{}\"", quoted(name)), None);
        self.end(value.as_bytes())
    }

    /// The same with a file.
    pub fn file(mut self, name: &str, file_name: &str, media_type: &str, bytes: &[u8]) -> Self {
        let disposition = format!("name=\"{}\"; filename=\"{}\"", quoted(name), quoted(file_name));
        let is_plain = !media_type.is_empty() && media_type.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        self.begin(
            &disposition,
            Some(if is_plain {
                media_type
            } else {
                "application/octet-stream"
            }),
        );
        self.end(bytes)
    }

    /// Of the request that carries it.
    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.body
            .extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        self.body
    }

    fn begin(&mut self, disposition: &str, media_type: Option<&str>) {
        let mut head = format!(
            "--{}\r\nContent-Disposition: form-data; {disposition}\r\n",
            self.boundary
        );
        if let Some(media_type) = media_type {
            head.push_str(&format!("Content-Type: {media_type}\r\n"));
        }
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(b"\r\n");
    }

    fn end(mut self, content: &[u8]) -> Self {
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
        self
    }
}

/// As browsers write it: what would end the value is escaped.
fn quoted(text: &str) -> String {
    text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_part_by_part() {
        let form = Form::new()
            .text("chat_id", "-7")
            .file("photo", "größe \"1\"\r\n.png", "image/png", b"\x89PNG\r\n")
            .file("document", "a", "text/plain\r\nX: y", b"");
        let boundary = form.content_type().split_once("boundary=").unwrap().1.to_owned();
        let body = String::from_utf8_lossy(&form.finish()).replace(&boundary, "B");
        let expected = "--B\r\nContent-Disposition: form-data; name=\"chat_id\"\r\n\r\n-7\r\n\
            --B\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"größe %221%22%0D%0A.png\"\r\n\
            Content-Type: image/png\r\n\r\n\u{fffd}PNG\r\n\r\n\
            --B\r\nContent-Disposition: form-data; name=\"document\"; filename=\"a\"\r\n\
            Content-Type: application/octet-stream\r\n\r\n\r\n--B--\r\n";
        assert_eq!(body, expected);
    }
}
