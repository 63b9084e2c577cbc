//! TwiML: what Twilio is to do with a call.

use super::Settings;

/// One answer, verb after verb.
pub struct Response {
    xml: String,
}

impl Response {
    /// Nothing said yet.
    pub fn new() -> Self {
        Self {
            xml: "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>".to_owned(),
        }
    }

    /// Speaks a text.
    pub fn say(mut self, text: &str, settings: &Settings) -> Self {
        self.xml.push_str("<Say");
        self.attribute("language", &settings.language);
        if let Some(voice) = &settings.voice {
            self.attribute("voice", voice);
        }
        self.xml.push('>');
        self.xml.push_str(&escaped(text));
        self.xml.push_str("</Say>");
        self
    }

    /// Records what the caller says, and what was said as text if that is wanted.
    pub fn record(mut self, settings: &Settings, own_url: &str) -> Self {
        self.xml.push_str("<Record playBeep=\"true\"");
        self.attribute("maxLength", &settings.max_recording_seconds.to_string());
        self.attribute("action", &format!("{own_url}?then=recorded"));
        self.attribute("recordingStatusCallback", own_url);
        if settings.transcribe {
            self.attribute("transcribe", "true");
            self.attribute("transcribeCallback", own_url);
        }
        self.xml.push_str("/>");
        self
    }

    /// Puts the caller through to a number; when that ends, we are asked again.
    pub fn dial(mut self, number: &str, settings: &Settings, own_url: &str) -> Self {
        self.xml.push_str("<Dial");
        self.attribute("timeout", &settings.forward_seconds.to_string());
        self.attribute("action", &format!("{own_url}?then=dialled"));
        if settings.record_calls {
            self.attribute("record", "record-from-answer-dual");
            self.attribute("recordingStatusCallback", own_url);
        }
        self.xml.push('>');
        self.xml.push_str(&escaped(number));
        self.xml.push_str("</Dial>");
        self
    }

    /// Ends the call.
    pub fn hang_up(mut self) -> Self {
        self.xml.push_str("<Hangup/>");
        self
    }

    /// The document.
    pub fn finish(mut self) -> String {
        self.xml.push_str("</Response>");
        self.xml
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.xml.push_str(&format!(" {name}=\"{}\"", escaped(value)));
    }
}

/// Text for XML 1.0: what has a meaning there is written otherwise, what may not be
/// there is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' | '\r' | '\t' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => {}
            other if other.is_control() => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_only_text() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected, "{text:?}");
        check("Hello & <b>bye</b>", "Hello &amp; &lt;b&gt;bye&lt;/b&gt;");
        check("\"it's\"", "&quot;it&apos;s&quot;");
        check("a\0b\u{b}c\nd\u{ffff}", "abc d");
        check("Grüße 😀", "Grüße 😀");
    }
}
