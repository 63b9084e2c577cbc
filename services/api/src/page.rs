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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the store does for us: the first `limit` behind a position.
    fn read(items: &[(i64, String)], after: Option<(Moment, String)>, limit: i64) -> Vec<(i64, String)> {
        let is_behind = |item: &&(i64, String)| match &after {
            Some((at, id)) => (Moment::from_ms(item.0), &item.1) > (*at, id),
            None => true,
        };
        items.iter().filter(is_behind).take(limit as usize).cloned().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        #[test]
        fn page_after_page_is_the_list(
            items in proptest::collection::btree_set((-5..5_i64, "[a-z0-9:_]{1,4}"), 0..40),
            limit in 1..10_i64,
        ) {
            let items: Vec<(i64, String)> = items.into_iter().collect();
            let mut found = Vec::new();
            let mut cursor: Option<String> = None;
            loop {
                let after = position(cursor.as_deref(), |text| moment_and_id(text, |id| Some(id.to_owned()))).unwrap();
                let page = page(read(&items, after, limit + 1), limit, |(ms, id)| format!("{ms}:{id}"));
                prop_assert!(page.items.len() <= limit as usize);
                found.extend(page.items);
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(found, items);
        }

        #[test]
        fn a_cursor_of_somebody_else_is_refused_or_read(cursor in "\\PC{0,40}") {
            let read = position(Some(&cursor), |text| moment_and_id(text, |id| Some(id.to_owned())));
            prop_assert!(matches!(read, Err(_) | Ok(Some(_))));
        }
    }
}
