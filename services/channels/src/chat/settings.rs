//! What an account of this channel is declared by.

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

const MAX_FORM_FIELDS: usize = 20;
const MAX_FILE_BYTES: u64 = 50 * 1024 * 1024;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Sites whose pages may open a chat, such as `https://www.example.com`; `*`
    /// for all. The origin of `[public] url` always may.
    #[serde(default)]
    pub allowed_origins: Vec<String>,
    /// Clients that send no Origin (apps, programs; no browser) may come.
    #[serde(default = "yes")]
    pub allow_programs: bool,
    /// So many proxies of ours stand before us: the visitor's address is that many
    /// from the end of X-Forwarded-For. 0: it is the connection's.
    #[serde(default)]
    pub trusted_proxies: usize,
    /// Whoever has had no socket for so long has left.
    #[serde(default = "minute")]
    pub away_after_seconds: u32,
    /// The e-mail account by which answers go to visitors who have left, if they gave
    /// an address.
    pub mail_account: Option<String>,
    /// The page of the site where a chat goes on: with it, such a mail holds a link
    /// there, which proves the address when it is opened.
    pub resume_url: Option<String>,
    /// Stands before that link.
    #[serde(default = "resume_text")]
    pub resume_text: String,
    /// A session that is not used for so long ends.
    #[serde(default = "month")]
    pub session_days: u32,
    /// When somebody is at the desk, by the name of a calendar. Without it: always.
    pub calendar: Option<String>,
    /// Shown to the visitor when nobody is.
    pub offline_text: Option<String>,
    /// What a visitor may be asked for before the chat, beside name and email.
    #[serde(default)]
    pub form: Vec<Field>,
    /// Of an uploaded file.
    #[serde(default = "ten_mebibytes")]
    pub max_file_bytes: u64,
    /// What files may truly be, by their bytes; `*` for anything.
    #[serde(default = "usual_types")]
    pub file_types: Vec<String>,
    /// How the site vouches for its own users.
    pub jwt: Option<Jwt>,
    #[serde(default)]
    pub limits: Limits,
}

/// A field of the form before the chat.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Field {
    pub name: String,
    #[serde(default)]
    pub required: bool,
}

/// The key of the site and what its tokens must say.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    /// HS256, RS256 or ES256.
    pub algorithm: String,
    /// The shared secret, or the public key as PEM.
    pub key: SecretString,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// Names the users: accounts of the same site know the same people.
    pub site: Option<String>,
    /// The site has verified the addresses in `email`.
    #[serde(default)]
    pub verifies_email: bool,
    /// The site has verified the numbers in `phone_number`.
    #[serde(default)]
    pub verifies_phone: bool,
}

/// What one visitor, one socket and one address may ask of us.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub messages_a_minute: u32,
    pub frames_a_second: u32,
    pub sockets_a_visitor: usize,
    pub sockets_an_address: usize,
    /// New sockets of one address.
    pub connects_a_minute: u32,
    /// Of one address.
    pub upload_mebibytes_an_hour: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages_a_minute: 60,
            frames_a_second: 20,
            sockets_a_visitor: 10,
            sockets_an_address: 100,
            connects_a_minute: 120,
            upload_mebibytes_an_hour: 500,
        }
    }
}

impl Settings {
    pub fn check(&self) -> Result<(), String> {
        for origin in &self.allowed_origins {
            if origin != "*" && origin_of(origin).as_deref() != Some(origin.as_str()) {
                return Err(format!(
                    "allowed_origins: {origin:?} is no origin; write https://www.example.com, without a path"
                ));
            }
        }
        if let Some(page) = &self.resume_url {
            let url = Url::parse(page).ok().filter(|url| url.fragment().is_none());
            if !url.is_some_and(|url| matches!(url.scheme(), "https" | "http")) {
                return Err(format!(
                    "resume_url: {page:?} is no page; write https://www.example.com/help, without a #"
                ));
            }
        }
        if self.resume_text.chars().any(char::is_control) {
            return Err("resume_text: is one line".to_owned());
        }
        if self.form.len() > MAX_FORM_FIELDS {
            return Err(format!("form: more than {MAX_FORM_FIELDS} fields"));
        }
        for field in &self.form {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if !(1..=40).contains(&field.name.len()) || !field.name.bytes().all(is_plain) {
                return Err(format!(
                    "form: {:?} is no name of a field: use 1 to 40 of a-z, 0-9 and _",
                    field.name
                ));
            }
        }
        if self.max_file_bytes > MAX_FILE_BYTES {
            return Err(format!("max_file_bytes: at most {MAX_FILE_BYTES}"));
        }
        if self.session_days == 0 || self.away_after_seconds == 0 {
            return Err("session_days and away_after_seconds are at least 1".to_owned());
        }
        Ok(())
    }

    pub fn away_after_ms(&self) -> i64 {
        i64::from(self.away_after_seconds) * 1000
    }

    pub fn takes_type(&self, media_type: &str) -> bool {
        self.file_types.iter().any(|taken| taken == "*" || taken == media_type)
    }

    pub fn session_ms(&self) -> i64 {
        i64::from(self.session_days) * 24 * 60 * 60 * 1000
    }
}

/// Scheme, host and port of a page, as browsers send it.
pub(super) fn origin_of(url: &str) -> Option<String> {
    let origin = Url::parse(url).ok()?.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

fn yes() -> bool {
    true
}

fn minute() -> u32 {
    60
}

fn resume_text() -> String {
    "Go on in the chat:".to_owned()
}

fn month() -> u32 {
    30
}

fn ten_mebibytes() -> u64 {
    10 * 1024 * 1024
}

fn usual_types() -> Vec<String> {
    [
        "application/pdf",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/plain",
    ]
    .map(str::to_owned)
    .to_vec()
}
