//! A message that the vendor has approved beforehand, with blanks that the desk
//! fills: what may be sent where an answer in own words may not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Refusal;

/// Blanks of one template.
const MAX_PARAMETERS: usize = 50;
/// Of a name or language, in characters.
const MAX_NAME_CHARS: usize = 512;
/// Of what fills a blank, in characters.
const MAX_PARAMETER_CHARS: usize = 1_024;

const NAME: &str = "template";
const LANGUAGE: &str = "template.language";
const PARAMETER: &str = "template.parameter.";

/// Which one, and what fills its blanks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// As the vendor knows it.
    pub name: String,
    /// As the vendor writes it: `en_US`.
    pub language: String,
    /// What fills the blanks of its text, in their order.
    pub parameters: Vec<String>,
}

impl Template {
    /// Whether a vendor could take it.
    pub fn check(&self) -> Result<(), Refusal> {
        for (field, text) in [("name", &self.name), ("language", &self.language)] {
            if text.trim().is_empty() || text.chars().count() > MAX_NAME_CHARS || text.chars().any(char::is_control) {
                return Err(Refusal::invalid(format!("`template.{field}` must be one short line")));
            }
        }
        let is_long = |text: &String| text.trim().is_empty() || text.chars().count() > MAX_PARAMETER_CHARS;
        if self.parameters.len() > MAX_PARAMETERS || self.parameters.iter().any(is_long) {
            return Err(Refusal::invalid(format!(
                "`template.parameters` are at most {MAX_PARAMETERS} texts of 1 to {MAX_PARAMETER_CHARS} characters"
            )));
        }
        Ok(())
    }

    /// For people of the desk, where nobody has written down what the contact will read.
    pub fn in_words(&self) -> String {
        let name = format!("Template {} ({})", self.name, self.language);
        match self.parameters.is_empty() {
            true => name,
            false => format!("{name}: {}", self.parameters.join(", ")),
        }
    }

    /// As the fields of the message that it makes.
    pub fn to_fields(&self) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::from([
            (NAME.to_owned(), self.name.clone()),
            (LANGUAGE.to_owned(), self.language.clone()),
        ]);
        for (index, text) in self.parameters.iter().enumerate() {
            fields.insert(format!("{PARAMETER}{:02}", index + 1), text.clone());
        }
        fields
    }

    /// The reverse; `None` for a message in own words.
    pub fn of_fields(fields: &BTreeMap<String, String>) -> Option<Self> {
        let parameters = fields.iter().filter(|(name, _)| name.starts_with(PARAMETER));
        Some(Self {
            name: fields.get(NAME)?.clone(),
            language: fields.get(LANGUAGE)?.clone(),
            parameters: parameters.map(|(_, text)| text.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(name: &str, language: &str, parameters: &[&str]) -> Template {
        Template {
            name: name.to_owned(),
            language: language.to_owned(),
            parameters: parameters.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn a_template_has_a_name_a_language_and_filled_blanks() {
        let check = |template: Template, expected: bool| {
            assert_eq!(template.check().is_ok(), expected, "{template:?}");
        };
        check(template("order_update", "en_US", &["Ada", "42"]), true);
        check(template("order_update", "en_US", &[]), true);
        check(template("", "en_US", &[]), false);
        check(template("order_update", " ", &[]), false);
        check(template("order\nupdate", "en", &[]), false);
        check(template("order_update", "en", &["Ada", ""]), false);
        check(template("order_update", "en", &[&"x".repeat(1_025)]), false);
        check(template("order_update", "en", &["x"; 51]), false);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let many: Vec<String> = (0..12).map(|index| index.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for template in [template("a", "en", &[]), template("a", "de", &many)] {
            assert_eq!(Template::of_fields(&template.to_fields()), Some(template));
        }
        assert_eq!(Template::of_fields(&BTreeMap::new()), None);
    }

    #[test]
    fn it_can_be_said_in_words() {
        assert_eq!(template("a", "en", &[]).in_words(), "Template a (en)");
        assert_eq!(
            template("a", "en", &["Ada", "42"]).in_words(),
            "Template a (en): Ada, 42"
        );
    }
}
