//! Who asks: bearer tokens, known by their SHA-256 only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::error::Error;

/// For how long a token found in the store is not asked for again. A revoked
/// token works that much longer.
const REMEMBERED: Duration = Duration::from_secs(5);

/// More tokens than that are never remembered at once.
const MAX_REMEMBERED: usize = 1_000;

/// The person of the desk who asks, by name.
#[derive(Clone, Debug)]
pub struct Person(pub String);

/// The tokens of the store, the latest from memory.
#[derive(Clone)]
pub struct Tokens {
    store: store::Store,
    /// By SHA-256. Only what was found, so that guesses push nothing out.
    known: Arc<Mutex<HashMap<String, (Person, Instant)>>>,
}

impl Tokens {
    pub fn new(store: store::Store) -> Self {
        Self {
            store,
            known: Arc::default(),
        }
    }

    async fn person(&self, token: &str) -> Result<Option<Person>, Error> {
        let sha256 = model::id::sha256_hex(token.as_bytes());
        if let Some(person) = self.remembered(&sha256) {
            return Ok(Some(person));
        }
        let person = self.store.person_of_token(&sha256).await?.map(Person);
        if let Some(person) = &person {
            self.remember(sha256, person.clone());
        }
        Ok(person)
    }

    fn remembered(&self, sha256: &str) -> Option<Person> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (person, found_at) = known.get(sha256)?;
        (found_at.elapsed() < REMEMBERED).then(|| person.clone())
    }

    fn remember(&self, sha256: String, person: Person) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(sha256, (person, Instant::now()));
    }
}

/// Lets a request pass with its [`Person`], or not.
pub async fn authenticate(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Result<Response, Error> {
    let Some(token) = bearer(request.headers()) else {
        return Err(Error::Unauthenticated {
            challenge: "Bearer realm=\"tributary\"",
            detail: "this needs a token: Authorization: Bearer …",
        });
    };
    let Some(person) = tokens.person(token).await? else {
        return Err(Error::Unauthenticated {
            challenge: "Bearer realm=\"tributary\", error=\"invalid_token\"",
            detail: "this token is not valid",
        });
    };
    request.extensions_mut().insert(person);
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
