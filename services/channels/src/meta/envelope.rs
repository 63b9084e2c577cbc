//! The envelope of Meta's webhooks: one POST carries many things, in `entry[]`, and
//! in them `changes[]`, `messaging[]` or `standby[]`. Each is taken out with as much
//! around it as it needs to be parsed alone again.

use model::id::sha256_hex;
use model::inbound::{Inbound, What};
use serde_json::{Map, Value, json};

use super::inbound;
use crate::channel::Unparsed;

/// Meta documents up to a thousand things in one POST.
const MAX_PIECES: usize = 10_000;

/// One thing of a POST.
pub struct Piece<'a> {
    pub object: &'a str,
    /// The id of what it happened to: a page, an account, a business.
    pub entry: &'a Value,
    /// Where it stood in its entry: `changes`, `messaging`, `standby`.
    pub list: &'static str,
    pub value: &'a Value,
}

/// Bytes as they came, read as JSON.
pub fn read(body: &[u8]) -> Result<Value, Unparsed> {
    let value: Value = serde_json::from_slice(body).map_err(|_| parked("it is not JSON, or too deep"))?;
    match value["entry"].is_array() && value["object"].is_string() {
        true => Ok(value),
        false => Err(parked("it has no object and no entry")),
    }
}

/// All things of a POST about this object, in their order.
pub fn pieces<'a>(posted: &'a Value, object: &str) -> Result<Vec<Piece<'a>>, Unparsed> {
    let found = posted["object"].as_str().unwrap_or_default();
    if found != object {
        return Err(parked(&format!("it is about another object than {object}")));
    }
    let mut pieces = Vec::new();
    for entry in posted["entry"].as_array().into_iter().flatten() {
        for list in ["changes", "messaging", "standby"] {
            for value in entry[list].as_array().into_iter().flatten() {
                pieces.push(Piece {
                    object: found,
                    entry: &entry["id"],
                    list,
                    value,
                });
            }
        }
    }
    match pieces.len() {
        0 => Err(parked("nothing happened in it")),
        1..=MAX_PIECES => Ok(pieces),
        _ => Err(parked("more happened in it than Meta puts into one")),
    }
}

impl Piece<'_> {
    /// What parses to this one thing again, with `value` in the place of its own.
    pub fn alone(&self, value: &Value) -> Vec<u8> {
        let mut entry = Map::from_iter([("id".to_owned(), self.entry.clone())]);
        entry.insert(self.list.to_owned(), json!([value]));
        json!({ "object": self.object, "entry": [entry] })
            .to_string()
            .into_bytes()
    }

    /// Kept for a person, with the reason.
    pub fn unread(&self, reason: impl Into<String>) -> Inbound {
        let raw = self.alone(self.value);
        let mut parked = inbound(sha256_hex(&raw), "unread", What::Parked { reason: reason.into() });
        parked.raw = Some(raw);
        parked
    }
}

/// What Meta sent is not what it documents.
pub fn parked(reason: &str) -> Unparsed {
    Unparsed::Parked {
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_found_and_stands_alone() {
        let posted = json!({ "object": "page", "entry": [
            { "id": "1", "time": 1, "messaging": [{ "a": 1 }, { "a": 2 }], "standby": [{ "a": 3 }] },
            { "id": "2", "changes": [{ "field": "feed" }] },
            { "id": "3" },
        ]});
        let found = pieces(&posted, "page").unwrap();
        let lists: Vec<_> = found.iter().map(|piece| (piece.list, piece.value)).collect();
        let expected = [
            ("messaging", &json!({ "a": 1 })),
            ("messaging", &json!({ "a": 2 })),
            ("standby", &json!({ "a": 3 })),
            ("changes", &json!({ "field": "feed" })),
        ];
        assert_eq!(lists, expected);
        for piece in &found {
            let alone = read(&piece.alone(piece.value)).unwrap();
            let again = pieces(&alone, "page").unwrap();
            assert_eq!(again.len(), 1);
            assert_eq!(
                (again[0].list, again[0].value, again[0].entry),
                (piece.list, piece.value, piece.entry)
            );
        }
    }

    #[test]
    fn what_is_no_envelope_is_parked() {
        for bytes in ["", "[]", "{}", "{\"entry\":[]}", "{\"object\":\"page\",\"entry\":{}}"] {
            assert!(read(bytes.as_bytes()).is_err(), "{bytes}");
        }
        let other = json!({ "object": "user", "entry": [{ "changes": [1] }] });
        assert!(pieces(&other, "page").is_err());
        let empty = json!({ "object": "page", "entry": [{ "id": "1" }] });
        assert!(pieces(&empty, "page").is_err());
        let many = vec![json!({}); MAX_PIECES + 1];
        let many = json!({ "object": "page", "entry": [{ "messaging": many }] });
        assert!(pieces(&many, "page").is_err());
    }
}
