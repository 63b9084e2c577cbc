//! Pages of lists: `?limit=&after=`, where `after` is an opaque cursor.

use data_encoding::BASE64URL_NOPAD;
use model::time::Moment;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::Error;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Goes into `after` for the next page; null on the last one.
    pub next: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// How many items at most: 1 to 200, 50 if not given.
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub after: Option<String>,
}

/// How many items a page may hold.
pub fn limit(asked: Option<i64>) -> Result<i64, Error> {
    let limit = asked.unwrap_or(50);
    if !(1..=200).contains(&limit) {
        return Err(Error::bad_request("bad_limit", "`limit` must be between 1 and 200"));
    }
    Ok(limit)
}

/// The position that a cursor of ours names, as `read` understands it.
pub fn position<T>(cursor: Option<&str>, read: fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    match text.and_then(|text| read(&text)) {
        Some(position) => Ok(Some(position)),
        None => Err(Error::bad_request(
            "bad_cursor",
            "`after` must be the `next` of a page of this list",
        )),
    }
}

/// Reads a position of a list in the order of a moment, then of an id: `ms:id`.
pub fn moment_and_id<T>(text: &str, read: fn(&str) -> Option<T>) -> Option<(Moment, T)> {
    let (ms, id) = text.split_once(':')?;
    Some((Moment::from_ms(ms.parse().ok()?), read(id)?))
}

/// Cuts what was read, one more than `limit` if there is more, to a page.
/// `position` gives the text that `read` above will get for the last item.
pub fn page<T>(mut items: Vec<T>, limit: i64, position: fn(&T) -> String) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| has_more);
    let next = last.map(|item| BASE64URL_NOPAD.encode(position(item).as_bytes()));
    Page { items, next }
}

impl<T> Page<T> {
    /// The page with its items in another form.
    pub fn map<U>(self, form: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(form).collect(),
            next: self.next,
        }
    }
}
