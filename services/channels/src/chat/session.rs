//! Who a visitor is: a session signed by us, or a user whom the site vouches for
//! with a JWT. Both end as a [`Visitor`], and what the client keeps is its token, so
//! that any replica knows everybody.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use model::contact::Party;
use model::id::MessageId;
use model::time::Moment;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::settings::{Field, Jwt};
use crate::phone::is_number;
use crate::signature::Keys;

const SESSION: &str = "chat-session";
/// Begins the threads of visitors whom only we know.
const ANONYMOUS: &str = "s-";
/// Of a user's name at the site, in bytes: a thread is named after it.
const MAX_USER_BYTES: usize = 128;
/// Clocks of the site and ours may differ by so much.
const LEEWAY_S: u64 = 30;
/// The shortest shared secret.
const MIN_SECRET_BYTES: usize = 16;
const MAX_EMAIL_CHARS: usize = 254;
const MAX_NAME_CHARS: usize = 200;
/// Of all that a session says: its token must come back in one `hello`.
const MAX_BYTES: usize = 6_000;

/// What we know of a visitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Visitor {
    /// Names the conversation within the account.
    pub thread: String,
    /// The kind and the name of the one whom the site vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The site says that the address is the user's, or the visitor has opened a link
    /// in a mail that went there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub email_is_verified: bool,
    /// A number that the site has verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The mail to that address by whose link the visitor came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<MessageId>,
    /// What else the form asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// When the session ends, in milliseconds since 1970.
    pub until: i64,
}

/// How the site vouches for its users.
pub(super) struct Site {
    key: DecodingKey,
    validation: Validation,
    scheme: String,
    verifies_email: bool,
    verifies_phone: bool,
}

/// That `sub` and `exp` are there is seen to by the validation.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Claims {
    sub: String,
    exp: i64,
    name: Option<String>,
    email: Option<String>,
    email_verified: Option<bool>,
    phone_number: Option<String>,
    phone_number_verified: Option<bool>,
}

impl Visitor {
    /// Somebody new.
    pub fn new(now: Moment, session_ms: i64) -> Self {
        Self {
            thread: format!("{ANONYMOUS}{}", uuid::Uuid::new_v4().simple()),
            user: None,
            name: None,
            email: None,
            email_is_verified: false,
            phone: None,
            opened: None,
            fields: BTreeMap::new(),
            until: now.as_ms() + session_ms,
        }
    }

    /// Whether this thread is nobody's whom the site vouches for.
    pub fn is_anonymous(thread: &str) -> bool {
        thread.starts_with(ANONYMOUS)
    }

    /// The visitor of this token, if we signed it for this account and it has not ended.
    pub fn of_token(account: &str, keys: &Keys, token: &str, now: Moment) -> Result<Self, &'static str> {
        const FOREIGN: &str = "the session is not ours";
        let (payload, mac) = token.split_once('.').ok_or(FOREIGN)?;
        if !keys.verify(SESSION, &signed(account, payload), mac) {
            return Err(FOREIGN);
        }
        let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| FOREIGN)?;
        let visitor: Self = serde_json::from_slice(&json).map_err(|_| FOREIGN)?;
        match visitor.until > now.as_ms() {
            true => Ok(visitor),
            false => Err("the session has expired"),
        }
    }

    /// What the client keeps.
    pub fn token(&self, account: &str, keys: &Keys) -> String {
        let payload = URL_SAFE_NO_PAD.encode(self.json());
        let mac = keys.sign(SESSION, &signed(account, &payload));
        format!("{payload}.{mac}")
    }

    /// A used session goes on; a user's ends with the site's word.
    pub fn prolong(&mut self, now: Moment, session_ms: i64) {
        if self.user.is_none() {
            self.until = now.as_ms() + session_ms;
        }
    }

    /// As it travels with a message.
    pub fn json(&self) -> String {
        // Texts and numbers alone: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Takes what the visitor filled in; says what is wrong with it.
    pub fn fill_in(&mut self, form: BTreeMap<String, String>, declared: &[Field]) -> Result<(), String> {
        for (name, value) in form {
            let value = value.trim();
            if value.chars().any(char::is_control) {
                return Err(format!("form.{name} is one line"));
            }
            match name.as_str() {
                "name" if value.chars().count() > MAX_NAME_CHARS => {
                    return Err(format!("form.name is longer than {MAX_NAME_CHARS} characters"));
                }
                "name" => self.name = (!value.is_empty()).then(|| value.to_owned()),
                // What is proven counts for more.
                "email" if self.email_is_verified => {}
                "email" if value.is_empty() => self.email = None,
                "email" if !is_email(value) => return Err("form.email is no address".to_owned()),
                "email" => self.email = Some(value.to_owned()),
                _ if !declared.iter().any(|field| field.name == name) => {
                    return Err(format!("form has no field {name:?}"));
                }
                _ if value.is_empty() => drop(self.fields.remove(&name)),
                _ => drop(self.fields.insert(name, value.to_owned())),
            }
        }
        match self.json().len() <= MAX_BYTES {
            true => Ok(()),
            false => Err("form is longer than a session can keep".to_owned()),
        }
    }

    /// A field that must be filled in and is not. Who was answered by mail has filled
    /// it in before.
    pub fn missing<'a>(&self, declared: &'a [Field]) -> Option<&'a str> {
        if self.opened.is_some() {
            return None;
        }
        let is_missing = |field: &&Field| match field.name.as_str() {
            "name" => field.required && self.name.is_none(),
            "email" => field.required && self.email.is_none(),
            name => field.required && !self.fields.contains_key(name),
        };
        declared.iter().find(is_missing).map(|field| field.name.as_str())
    }

    /// The sender of its messages.
    pub fn party(&self) -> Party {
        let (scheme, address) = match &self.user {
            Some((scheme, address)) => (scheme.clone(), address.clone()),
            None => ("visitor".to_owned(), self.thread.clone()),
        };
        Party {
            scheme,
            address,
            name: self.name.clone(),
            verified: true,
        }
    }

    /// Its other addresses.
    pub fn identities(&self) -> Vec<Party> {
        let email = self.email.iter().map(|address| Party {
            scheme: "email".to_owned(),
            address: address.clone(),
            name: self.name.clone(),
            verified: self.email_is_verified,
        });
        let phone = self.phone.iter().map(|number| Party {
            scheme: "phone".to_owned(),
            address: number.clone(),
            name: self.name.clone(),
            verified: true,
        });
        email.chain(phone).collect()
    }
}

impl Site {
    /// The site that this part of the settings describes.
    pub fn new(settings: &Jwt, account: &str) -> Result<Self, String> {
        let secret = settings.key.expose_secret().trim();
        let (algorithm, key) = match settings.algorithm.as_str() {
            "HS256" if secret.len() < MIN_SECRET_BYTES => {
                return Err(format!(
                    "jwt.key: a shared secret has at least {MIN_SECRET_BYTES} bytes"
                ));
            }
            "HS256" => (Algorithm::HS256, Ok(DecodingKey::from_secret(secret.as_bytes()))),
            "RS256" => (Algorithm::RS256, DecodingKey::from_rsa_pem(secret.as_bytes())),
            "ES256" => (Algorithm::ES256, DecodingKey::from_ec_pem(secret.as_bytes())),
            other => return Err(format!("jwt.algorithm: {other:?} is none of HS256, RS256, ES256")),
        };
        let key = key.map_err(|_| "jwt.key: is no public key in PEM of this algorithm".to_owned())?;
        // Only this algorithm, whatever the token says of itself.
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "sub"]);
        match &settings.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.set_required_spec_claims(&["exp", "sub", "aud"]);
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = &settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Ok(Self {
            key,
            validation,
            scheme: format!("user/{}", settings.site.as_deref().unwrap_or(account)),
            verifies_email: settings.verifies_email,
            verifies_phone: settings.verifies_phone,
        })
    }

    /// The user whom this JWT names, or why it is not good.
    pub fn visitor(&self, jwt: &str, now: Moment, session_ms: i64) -> Result<Visitor, &'static str> {
        let claims: Claims = jsonwebtoken::decode(jwt, &self.key, &self.validation)
            .map_err(|error| reason(error.kind()))?
            .claims;
        if claims.sub.is_empty() || claims.sub.len() > MAX_USER_BYTES {
            return Err("sub of the JWT is empty or too long");
        }
        let user = with_case(&claims.sub);
        let ends_at = claims.exp.saturating_add(LEEWAY_S as i64).saturating_mul(1000);
        let until = ends_at.min(now.as_ms() + session_ms);
        let is_line = |text: &String| !text.trim().is_empty() && !text.chars().any(char::is_control);
        let email = claims.email.filter(|email| is_email(email));
        let phone = claims.phone_number.filter(|number| is_number(number));
        let is_phone_verified = self.verifies_phone && claims.phone_number_verified != Some(false);
        Ok(Visitor {
            thread: format!("u-{user}"),
            user: Some((self.scheme.clone(), user)),
            name: claims
                .name
                .filter(is_line)
                .map(|name| name.chars().take(MAX_NAME_CHARS).collect()),
            email_is_verified: self.verifies_email && email.is_some() && claims.email_verified != Some(false),
            phone: phone.filter(|_| is_phone_verified),
            opened: None,
            email,
            fields: BTreeMap::new(),
            until,
        })
    }
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the JWT has expired",
        ErrorKind::ImmatureSignature => "the JWT is not valid yet",
        ErrorKind::InvalidSignature => "the JWT has a wrong signature",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "the JWT has another algorithm",
        ErrorKind::InvalidIssuer => "the JWT has another issuer",
        ErrorKind::InvalidAudience => "the JWT is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "a claim of the JWT is missing",
        _ => "the JWT cannot be read",
    }
}

/// Addresses are compared without case, users of a site are not: whatever is not
/// plain and in lower case is written as `%xx`.
fn with_case(user: &str) -> String {
    let mut text = String::new();
    for byte in user.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'@' | b'+' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

pub(super) fn is_email(text: &str) -> bool {
    let is_plain = !text.contains(|c: char| c.is_whitespace() || c.is_control() || "<>,;\"".contains(c));
    let parts = text.split_once('@');
    let is_whole =
        parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    is_plain && is_whole && text.chars().count() <= MAX_EMAIL_CHARS
}

fn signed(account: &str, payload: &str) -> Vec<u8> {
    format!("{account}\n{payload}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    const NOW: i64 = 4_000_000_000_000;
    const HOUR_MS: i64 = 3_600_000;
    const SECRET: &str = "a secret of the site alone";

    fn keys(byte: u8) -> Keys {
        Keys::new(vec![vec![byte; 32]]).unwrap()
    }

    fn now() -> Moment {
        Moment::from_ms(NOW)
    }

    #[test]
    fn a_session_is_good_for_its_account_and_its_time() {
        let visitor = Visitor {
            name: Some("Ada".to_owned()),
            fields: [("order".to_owned(), "4711".to_owned())].into(),
            ..Visitor::new(now(), HOUR_MS)
        };
        let token = visitor.token("shop", &keys(1));
        let check = |account: &str, byte: u8, token: &str, after_ms: i64, expected: Result<(), &str>| {
            let found = Visitor::of_token(account, &keys(byte), token, now().plus_ms(after_ms));
            assert_eq!(found.as_ref().map(|_| ()).map_err(|error| *error), expected, "{token}");
            if let Ok(found) = found {
                assert_eq!(found, visitor);
            }
        };
        const FOREIGN: Result<(), &str> = Err("the session is not ours");
        check("shop", 1, &token, HOUR_MS - 1, Ok(()));
        check("shop", 1, &token, HOUR_MS, Err("the session has expired"));
        check("sales", 1, &token, 0, FOREIGN);
        check("shop", 2, &token, 0, FOREIGN);
        check("shop", 1, "", 0, FOREIGN);
        check("shop", 1, ".", 0, FOREIGN);
        check("shop", 1, &token[1..], 0, FOREIGN);
        check("shop", 1, &token.replace('.', ""), 0, FOREIGN);
        let (payload, _) = token.split_once('.').unwrap();
        check("shop", 1, payload, 0, FOREIGN);
        check("shop", 1, &format!("{payload}."), 0, FOREIGN);
        check(
            "shop",
            1,
            &format!("{payload}.{}", "a".repeat(Keys::TOKEN_CHARS)),
            0,
            FOREIGN,
        );
        let other = Visitor::new(now(), HOUR_MS).token("shop", &keys(1));
        let (_, mac) = other.split_once('.').unwrap();
        check("shop", 1, &format!("{payload}.{mac}"), 0, FOREIGN);
    }

    fn site(settings: &str) -> Site {
        let settings: Jwt = toml::from_str(settings).unwrap();
        Site::new(&settings, "shop").unwrap()
    }

    fn hs256(more: &str) -> Site {
        site(&format!("algorithm = 'HS256'\nkey = '{SECRET}'\n{more}"))
    }

    fn jwt(secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
    }

    /// Good for an hour from the present: the library reads the clock itself.
    fn claims() -> Value {
        let in_an_hour = Moment::from(std::time::SystemTime::now()).as_ms() / 1000 + 3600;
        json!({ "sub": "Ada|1", "exp": in_an_hour, "name": "Ada", "email": "ada@example.com" })
    }

    #[test]
    fn only_a_good_jwt_names_a_user() {
        let check = |site: &Site, jwt: &str, expected: Result<&str, &str>| {
            let found = site.visitor(jwt, now(), HOUR_MS);
            assert_eq!(
                found
                    .as_ref()
                    .map(|visitor| visitor.thread.as_str())
                    .map_err(|error| *error),
                expected
            );
        };
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            jwt(SECRET, &claims)
        };
        let without = |name: &str| {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            jwt(SECRET, &claims)
        };
        let plain = hs256("");
        check(&plain, &jwt(SECRET, &claims()), Ok("u-%41da%7c1"));
        check(
            &plain,
            &jwt("another secret of that length", &claims()),
            Err("the JWT has a wrong signature"),
        );
        check(&plain, &with("exp", json!(1_000_000)), Err("the JWT has expired"));
        check(&plain, &with("nbf", json!(NOW / 1000)), Err("the JWT is not valid yet"));
        check(&plain, &without("exp"), Err("a claim of the JWT is missing"));
        check(&plain, &without("sub"), Err("a claim of the JWT is missing"));
        check(
            &plain,
            &with("sub", json!("")),
            Err("sub of the JWT is empty or too long"),
        );
        check(
            &plain,
            &with("sub", json!("x".repeat(129))),
            Err("sub of the JWT is empty or too long"),
        );
        check(&plain, "", Err("the JWT cannot be read"));
        check(&plain, "a.b.c", Err("the JWT cannot be read"));
        // alg: none, in every spelling, with and without what looks like a signature.
        let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
        for algorithm in ["none", "None", "NONE", "nOnE", ""] {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": algorithm, "typ": "JWT" }).to_string());
            check(&plain, &format!("{header}.{payload}."), Err("the JWT cannot be read"));
            check(
                &plain,
                &format!("{header}.{payload}.AAAA"),
                Err("the JWT cannot be read"),
            );
        }
        // The right secret, used with another algorithm of its family.
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let hs512 = encode(&Header::new(Algorithm::HS512), &claims(), &key).unwrap();
        check(&plain, &hs512, Err("the JWT has another algorithm"));
        let strict = hs256("issuer = 'https://example.com'\naudience = 'chat'");
        check(&strict, &jwt(SECRET, &claims()), Err("a claim of the JWT is missing"));
        let mut told = claims();
        told["iss"] = json!("https://example.com");
        told["aud"] = json!("mail");
        check(&strict, &jwt(SECRET, &told), Err("the JWT is for another audience"));
        told["aud"] = json!(["mail", "chat"]);
        check(&strict, &jwt(SECRET, &told), Ok("u-%41da%7c1"));
        told["iss"] = json!("https://evil.example");
        check(&strict, &jwt(SECRET, &told), Err("the JWT has another issuer"));
        // An audience that nobody asked for is none of our business.
        check(&plain, &with("aud", json!("mail")), Ok("u-%41da%7c1"));
    }

    #[test]
    fn an_address_is_verified_only_by_a_site_that_verifies() {
        let check = |settings: &str, email_verified: Value, expected: bool| {
            let mut claims = claims();
            claims["email_verified"] = email_verified;
            let visitor = hs256(settings).visitor(&jwt(SECRET, &claims), now(), HOUR_MS).unwrap();
            assert_eq!(visitor.identities()[0].verified, expected, "{settings}");
            assert_eq!(
                visitor.party().scheme,
                if settings.contains("site") {
                    "user/us"
                } else {
                    "user/shop"
                }
            );
        };
        check("", json!(true), false);
        check("verifies_email = true\nsite = 'us'", json!(true), true);
        check("verifies_email = true", Value::Null, true);
        check("verifies_email = true", json!(false), false);
    }

    #[test]
    fn a_number_counts_only_by_a_site_that_verifies() {
        let check = |settings: &str, number: &str, verified: Value, expected: Option<&str>| {
            let mut claims = claims();
            claims["phone_number"] = json!(number);
            claims["phone_number_verified"] = verified;
            let visitor = hs256(settings).visitor(&jwt(SECRET, &claims), now(), HOUR_MS).unwrap();
            let found = visitor.identities().into_iter().find(|party| party.scheme == "phone");
            assert_eq!(
                found.map(|party| (party.address, party.verified)),
                expected.map(|to| (to.to_owned(), true))
            );
        };
        let number = "+15552223333";
        check("", number, json!(true), None);
        check("verifies_phone = true", number, json!(true), Some(number));
        check("verifies_phone = true", number, Value::Null, Some(number));
        check("verifies_phone = true", number, json!(false), None);
        check("verifies_phone = true", "555 222", json!(true), None);
        check("verifies_phone = true", "", json!(true), None);
    }

    #[test]
    fn keys_that_cannot_work_are_refused() {
        let check = |settings: &str, expected: &str| {
            let settings: Jwt = toml::from_str(settings).unwrap();
            let error = Site::new(&settings, "shop").err().unwrap_or_default();
            assert!(error.contains(expected), "{error}");
        };
        check("algorithm = 'none'\nkey = 'x'", "is none of HS256, RS256, ES256");
        check("algorithm = 'HS256'\nkey = 'short'", "at least 16 bytes");
        check(
            "algorithm = 'RS256'\nkey = 'a shared secret, by mistake'",
            "no public key in PEM",
        );
        check(
            "algorithm = 'ES256'\nkey = 'a shared secret, by mistake'",
            "no public key in PEM",
        );
    }

    #[test]
    fn a_form_is_filled_in_as_declared() {
        let declared: Vec<Field> = ["order", "email"]
            .map(|name| Field {
                name: name.to_owned(),
                required: name == "email",
            })
            .to_vec();
        let fill = |visitor: &mut Visitor, name: &str, value: &str| {
            visitor.fill_in([(name.to_owned(), value.to_owned())].into(), &declared)
        };
        let mut visitor = Visitor::new(now(), HOUR_MS);
        assert_eq!(visitor.missing(&declared), Some("email"));
        for (name, value, expected) in [
            ("email", "ada", "no address"),
            ("email", "ada@", "no address"),
            ("email", "a@b@c", "no address"),
            ("email", "Ada <ada@example.com>", "no address"),
            ("email", "a@b\nc", "one line"),
            ("name", "a\0b", "one line"),
            ("colour", "red", "no field \"colour\""),
        ] {
            assert!(
                fill(&mut visitor, name, value).unwrap_err().contains(expected),
                "{name} {value}"
            );
        }
        fill(&mut visitor, "email", " ada@example.com ").unwrap();
        fill(&mut visitor, "order", "4711").unwrap();
        fill(&mut visitor, "name", "Ada").unwrap();
        assert_eq!(visitor.missing(&declared), None);
        let identity = &visitor.identities()[0];
        assert_eq!(
            (identity.address.as_str(), identity.verified),
            ("ada@example.com", false)
        );
        assert_eq!(visitor.fields["order"], "4711");
        fill(&mut visitor, "order", "").unwrap();
        assert!(visitor.fields.is_empty());
        // What could not come back as a session is refused.
        let long = Field {
            name: "order".to_owned(),
            required: false,
        };
        let mut talkative = Visitor::new(now(), HOUR_MS);
        let tell = |visitor: &mut Visitor, bytes: usize| {
            visitor.fill_in(
                [("order".to_owned(), "x".repeat(bytes))].into(),
                std::slice::from_ref(&long),
            )
        };
        tell(&mut talkative, MAX_BYTES - 200).unwrap();
        assert!(talkative.token("shop", &keys(1)).len() <= frame::MAX_TOKEN_BYTES);
        assert!(tell(&mut talkative, MAX_BYTES).unwrap_err().contains("longer than"));
        // What the site has verified stays.
        visitor.email_is_verified = true;
        fill(&mut visitor, "email", "eve@example.com").unwrap();
        assert_eq!(visitor.email.as_deref(), Some("ada@example.com"));
    }
}
