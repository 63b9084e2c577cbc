//! A template, as a reply names it and as a message shows it.

use model::template::Template;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A message that the vendor has approved beforehand, with blanks to be filled.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Template)]
pub struct TemplateView {
    /// As the vendor knows it.
    #[schema(example = "order_update")]
    name: String,
    /// As the vendor writes it.
    #[schema(example = "en_US")]
    language: String,
    /// What fills the blanks of its text, in their order: at most 50, of 1 to 1,024 characters.
    #[serde(default)]
    parameters: Vec<String>,
}

impl From<TemplateView> for Template {
    fn from(view: TemplateView) -> Self {
        Self {
            name: view.name,
            language: view.language,
            parameters: view.parameters,
        }
    }
}

impl From<Template> for TemplateView {
    fn from(template: Template) -> Self {
        Self {
            name: template.name,
            language: template.language,
            parameters: template.parameters,
        }
    }
}
