//! `X-Twilio-Signature`: an HMAC over the URL as Twilio knows it and the fields of
//! the form. It has no time in it, so a repeat verifies for ever; ids take care of
//! repeats.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::id::sha256_hex;

use super::form::{Form, is_form};
use crate::channel::{BadSignature, Input};

/// The header of the signature.
pub const SIGNATURE: &str = "x-twilio-signature";
/// The header that names another key than the auth token.
pub const SIGNATURE_SETTINGS: &str = "x-twilio-webhooks-signature-settings";

/// The parameter of the URL by which a body that is no form is signed.
const BODY_SHA256: &str = "bodySHA256";

/// The keys of an account, and the URL under which Twilio sees us.
pub struct Verifier {
    public_url: String,
    tokens: Vec<String>,
    shared: BTreeMap<String, String>,
}

impl Verifier {
    /// `public_url`: scheme, host and perhaps port, and the path of a proxy.
    pub fn new<'a>(
        public_url: &str,
        tokens: impl Iterator<Item = &'a str>,
        shared: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        Self {
            public_url: public_url.to_owned(),
            tokens: tokens.map(ToOwned::to_owned).collect(),
            shared: shared.map(|(id, key)| (id.to_owned(), key.to_owned())).collect(),
        }
    }

    /// Checks the signature over the whole URL, path and query exactly as they came.
    pub fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        let bad = |reason| Err(BadSignature { reason });
        let Some(signature) = input.header(SIGNATURE) else {
            return bad("x-twilio-signature is missing");
        };
        let Ok(signature) = STANDARD.decode(signature.trim()) else {
            return bad("x-twilio-signature is not base64");
        };
        let keys = self.keys(input)?;
        let fields = if is_form(input) {
            signed_fields(&Form::of_body(input))
        } else if input.body.is_empty() {
            String::new()
        } else {
            verify_body(input)?;
            String::new()
        };
        let urls = spellings(&self.public_url, &input.url);
        let is_signed = urls.iter().any(|url| {
            let text = format!("{url}{fields}");
            keys.iter()
                .any(|key| hmac::verify(key, text.as_bytes(), &signature).is_ok())
        });
        match is_signed {
            true => Ok(()),
            false => bad("x-twilio-signature is by another token, or for another URL than [public] url"),
        }
    }

    /// The auth tokens with SHA-1, or the shared key that the request names.
    fn keys(&self, input: &Input) -> Result<Vec<hmac::Key>, BadSignature> {
        let Some(settings) = input.header(SIGNATURE_SETTINGS) else {
            let key = |token: &String| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
            return Ok(self.tokens.iter().map(key).collect());
        };
        let setting = |name: &str| {
            let mut pairs = settings.split(',').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        let algorithm = setting("algorithm").unwrap_or("HMAC_SHA1").to_ascii_uppercase();
        let algorithm = match algorithm.as_str() {
            "HMAC_SHA256" => hmac::HMAC_SHA256,
            "HMAC_SHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            _ => {
                return Err(BadSignature {
                    reason: "the signature's algorithm is unknown",
                });
            }
        };
        match setting("key").and_then(|id| self.shared.get(id)) {
            Some(secret) => Ok(vec![hmac::Key::new(algorithm, secret.as_bytes())]),
            None => Err(BadSignature {
                reason: "the signature is by a shared key that the settings do not have",
            }),
        }
    }
}

/// Without the parameter nothing would tell whether the body is Twilio's.
fn verify_body(input: &Input) -> Result<(), BadSignature> {
    let expected = sha256_hex(&input.body);
    match Form::of_query(&input.url).get(BODY_SHA256) {
        Some(found) if verify_slices_are_equal(found.as_bytes(), expected.as_bytes()).is_ok() => Ok(()),
        Some(_) => Err(BadSignature {
            reason: "bodySHA256 is of another body",
        }),
        None => Err(BadSignature {
            reason: "a body that is no form needs bodySHA256",
        }),
    }
}

/// Names and values in the order of their bytes, without anything between them; a
/// value that is given twice counts once, as in Twilio's own libraries.
fn signed_fields(form: &Form) -> String {
    let mut fields: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in form.pairs() {
        fields.entry(name).or_default().insert(value);
    }
    let mut text = String::new();
    for (name, values) in fields {
        for value in values {
            text.push_str(name);
            text.push_str(value);
        }
    }
    text
}

/// Twilio signs a URL with its standard port or without, and no one knows which: as
/// it is configured, without its port, and with the standard one.
fn spellings(public_url: &str, path_and_query: &str) -> Vec<String> {
    let mut urls = vec![format!("{public_url}{path_and_query}")];
    let Some((scheme, rest)) = public_url.split_once("://") else {
        return urls;
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    // The colons of an IPv6 address stand in brackets.
    let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    match port_at {
        Some(at) => urls.push(format!("{scheme}://{}{path}{path_and_query}", &authority[..at])),
        None => {
            let port = if scheme == "http" { 80 } else { 443 };
            urls.push(format!("{scheme}://{authority}:{port}{path}{path_and_query}"));
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use model::time::Moment;
    use serde_json::Value;

    use super::*;

    /// Signatures made by Twilio's own libraries.
    fn vectors() -> Value {
        serde_json::from_str(include_str!("testdata/vectors.json")).unwrap()
    }

    fn text<'a>(vectors: &'a Value, name: &str) -> &'a str {
        vectors[name].as_str().unwrap()
    }

    fn form_of(params: &Value) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in params.as_object().unwrap() {
            match value {
                Value::Array(values) => values.iter().for_each(|value| {
                    form.append_pair(name, value.as_str().unwrap());
                }),
                value => {
                    form.append_pair(name, value.as_str().unwrap());
                }
            }
        }
        form.finish()
    }

    struct Request<'a> {
        url: &'a str,
        media_type: &'static str,
        body: String,
        signature: &'a str,
        settings: Option<&'static str>,
    }

    fn is_good(public_url: &str, tokens: &[&str], request: &Request<'_>) -> bool {
        let shared = [("KI1", text_of_shared())];
        let shared = shared.iter().map(|(id, key)| (*id, key.as_str()));
        let verifier = Verifier::new(public_url, tokens.iter().copied(), shared);
        let path = request.url.split_once("gw.example.com").unwrap().1;
        let mut headers = vec![
            ("content-type".to_owned(), request.media_type.to_owned()),
            (SIGNATURE.to_owned(), request.signature.to_owned()),
        ];
        headers.extend(
            request
                .settings
                .map(|text| (SIGNATURE_SETTINGS.to_owned(), text.to_owned())),
        );
        let input = Input {
            method: "POST".to_owned(),
            url: path.to_owned(),
            headers,
            body: request.body.clone().into(),
            received_at: Moment::from_ms(0),
        };
        verifier.verify(&input).is_ok()
    }

    fn text_of_shared() -> String {
        text(&vectors(), "sharedkey_secret").to_owned()
    }

    const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

    #[test]
    fn what_their_libraries_sign_is_accepted_and_nothing_else() {
        let vectors = vectors();
        let v = |name: &str| text(&vectors, name);
        let public = "https://gw.example.com";
        let token = [v("auth_token")];
        let form = |url, params: &str, signature| Request {
            url,
            media_type: FORM,
            body: form_of(&vectors[params]),
            signature,
            settings: None,
        };
        let plain = || form(v("url"), "params", v("value"));
        let good = [
            plain(),
            form(v("url"), "params", v("value_signed_with_port_443")),
            form(v("sms_url"), "sms_params", v("sms_value")),
            form(v("duplicate_url"), "duplicate_params", v("duplicate_value")),
            Request {
                settings: Some("key=KI1, algorithm=HMAC_SHA256"),
                ..form(v("url"), "params", v("sharedkey_hmac_sha256_value"))
            },
            Request {
                media_type: "application/json",
                body: v("json_body").to_owned(),
                ..form(v("json_url"), "params", v("json_value"))
            },
            Request {
                media_type: "",
                body: String::new(),
                ..form(v("get_url"), "params", v("get_value"))
            },
        ];
        for request in &good {
            assert!(is_good(public, &token, request), "{}", request.url);
            assert!(
                is_good("https://gw.example.com:443", &token, request),
                "{}",
                request.url
            );
            assert!(is_good(public, &["new", token[0]], request), "{}", request.url);
            if request.settings.is_none() {
                assert!(!is_good(public, &["another"], request), "{}", request.url);
            }
            assert!(
                !is_good("https://other.example.com", &token, request),
                "{}",
                request.url
            );
        }
        let bad = [
            Request {
                body: form_of(&vectors["sms_params"]),
                ..plain()
            },
            Request {
                signature: "",
                ..plain()
            },
            Request {
                signature: "not base64!",
                ..plain()
            },
            Request {
                url: v("sms_url"),
                ..plain()
            },
            // The signature is good, and by no key of ours.
            Request {
                settings: Some("key=KI2,algorithm=HMAC_SHA256"),
                ..form(v("url"), "params", v("sharedkey_hmac_sha256_value"))
            },
            Request {
                settings: Some("key=KI1,algorithm=none"),
                ..plain()
            },
            // Nothing in the signature covers this body.
            Request {
                media_type: "application/json",
                body: "{}".to_owned(),
                ..form(v("get_url"), "params", v("get_value"))
            },
            Request {
                media_type: "application/json",
                body: r#"{"a":2,"b":"é"}"#.to_owned(),
                ..form(v("json_url"), "params", v("json_value"))
            },
        ];
        for (index, request) in bad.iter().enumerate() {
            assert!(!is_good(public, &token, request), "{index}");
        }
    }

    #[test]
    fn a_url_is_tried_with_and_without_its_port() {
        let check = |public_url: &str, expected: &[&str]| {
            assert_eq!(spellings(public_url, "/in/a?b=%20"), expected, "{public_url}");
        };
        check(
            "https://a.example",
            &["https://a.example/in/a?b=%20", "https://a.example:443/in/a?b=%20"],
        );
        check(
            "http://a.example",
            &["http://a.example/in/a?b=%20", "http://a.example:80/in/a?b=%20"],
        );
        check(
            "https://a.example:8443/tributary",
            &[
                "https://a.example:8443/tributary/in/a?b=%20",
                "https://a.example/tributary/in/a?b=%20",
            ],
        );
        check(
            "https://[::1]",
            &["https://[::1]/in/a?b=%20", "https://[::1]:443/in/a?b=%20"],
        );
        check(
            "https://[::1]:9",
            &["https://[::1]:9/in/a?b=%20", "https://[::1]/in/a?b=%20"],
        );
        check("strange", &["strange/in/a?b=%20"]);
    }
}
