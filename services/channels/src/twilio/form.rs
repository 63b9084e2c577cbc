//! Forms, as Twilio posts them.

use url::form_urlencoded;

use crate::channel::Input;

/// Fields of one form; Twilio sends about fifty.
const MAX_FIELDS: usize = 1_000;

/// The fields in the order in which they came.
pub struct Form {
    pairs: Vec<(String, String)>,
}

impl Form {
    /// Of a body.
    pub fn of_body(input: &Input) -> Self {
        Self::read(&input.body)
    }

    /// Of the query of a path.
    pub fn of_query(path_and_query: &str) -> Self {
        let query = path_and_query.split_once('?').map_or("", |(_, query)| query);
        Self::read(query.as_bytes())
    }

    fn read(bytes: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(bytes).into_owned().take(MAX_FIELDS);
        Self { pairs: pairs.collect() }
    }

    /// The first value of this name that says something.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.pairs.iter().filter(|(key, _)| key == name);
        found
            .find(|(_, value)| !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All fields, empty ones too.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Whether the body is a form.
pub fn is_form(input: &Input) -> bool {
    let media_type = input.header("content-type").unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let form = Form::of_query("/in/a?message=msg_1&part=&part=2-of-3&x=%C3%A4+%2B");
        assert_eq!(form.get("message"), Some("msg_1"));
        assert_eq!(form.get("part"), Some("2-of-3"));
        assert_eq!(form.get("x"), Some("ä +"));
        assert_eq!(form.get("y"), None);
        assert_eq!(Form::of_query("/in/a").pairs().count(), 0);
        let flood = format!("/?{}", "a&".repeat(5_000));
        assert_eq!(Form::of_query(&flood).pairs().count(), MAX_FIELDS);
    }
}
