//! How far a mailbox is read: a UID, and how to notice that UIDs have lost their
//! meaning; and what is unknown of the mails that are then compared.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use model::time::Moment;
use serde::{Deserialize, Serialize};

use super::imap::{Connection, Fetched, Opened};
use super::settings::Since;
use super::{mime, parse};
use crate::channel::PullError;
use crate::pull::Source;

/// UIDs of which the cursor remembers what they were.
const MARKS: usize = 3;
/// Keys that the store is asked for at once.
const KEYS_AT_ONCE: usize = 500;

/// How far the mailbox is read; kept in the store as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub uid_validity: u32,
    pub last_uid: u32,
    /// When reading began: older mail is none of ours when mails are compared.
    pub since: Moment,
    /// Up to this UID, mails are compared and not simply new; 0 for none.
    pub compare_to: u32,
    /// The latest UIDs and what they were, to notice that UIDs were given anew.
    marks: Vec<(u32, String)>,
}

impl Cursor {
    /// At the first connection.
    pub async fn first(since: Since, connection: &mut Connection, opened: &Opened) -> Result<Self, PullError> {
        let highest = opened.uid_next.saturating_sub(1);
        let cursor = |last_uid: u32, since: Moment, compare_to: u32| Self {
            uid_validity: opened.uid_validity,
            last_uid,
            since,
            compare_to,
            marks: Vec::new(),
        };
        Ok(match since {
            Since::All => cursor(0, Moment::from_ms(0), 0),
            // Compared with a store that knows nothing of it.
            Since::At(moment) => cursor(0, moment, highest),
            Since::Now => {
                let now = Moment::from(SystemTime::now());
                // INTERNALDATE has whole seconds.
                let second = now.plus_ms(-now.as_ms().rem_euclid(1000));
                Self {
                    marks: marks_of(connection, opened).await?,
                    ..cursor(highest, second, 0)
                }
            }
        })
    }

    /// Whether the server still means the same by UIDs.
    ///
    /// Removing Dovecot's `dovecot-uidlist` keeps UIDVALIDITY and numbers every mail
    /// anew. So a lower UIDNEXT, another mail under a UID that we know, and a mail
    /// that we know under a higher UID count too.
    pub async fn fits(&self, connection: &mut Connection, opened: &Opened) -> Result<bool, PullError> {
        if opened.uid_validity != self.uid_validity || opened.uid_next <= self.last_uid {
            return Ok(false);
        }
        if self.marks.is_empty() || opened.exists == 0 {
            return Ok(true);
        }
        let uids: Vec<u32> = self.marks.iter().map(|(uid, _)| *uid).collect();
        let found = connection.key_headers(&uids).await?;
        if !found.is_empty() {
            let is_known = |fetched: &Fetched| self.marks.contains(&(fetched.uid, mark(&fetched.bytes)));
            return Ok(found.iter().all(is_known));
        }
        // All of them moved or deleted by somebody, or numbered anew.
        let above = connection.above(self.last_uid).await?;
        let found = connection.key_headers(&above).await?;
        let marks: HashSet<&String> = self.marks.iter().map(|(_, mark)| mark).collect();
        Ok(!found.iter().any(|fetched| marks.contains(&mark(&fetched.bytes))))
    }

    /// UIDs mean nothing any more: begins anew, comparing what is there.
    pub fn begin_comparison(&mut self, opened: &Opened) {
        self.uid_validity = opened.uid_validity;
        self.last_uid = 0;
        self.compare_to = opened.uid_next.saturating_sub(1);
        self.marks.clear();
    }

    pub fn is_comparing(&self) -> bool {
        self.last_uid < self.compare_to
    }

    /// The mail is durable, parked or gone.
    pub fn advance(&mut self, uid: u32, mark: Option<String>) {
        self.last_uid = uid;
        if let Some(mark) = mark {
            self.marks.push((uid, mark));
            let excess = self.marks.len().saturating_sub(MARKS);
            self.marks.drain(..excess);
        }
    }
}

/// UIDs up to `compare_to` whose mails the store does not know: by the key of
/// their headers, all of those of which the mailbox has more than the store, and
/// all without a Message-ID. Fetching one too many is harmless (C2).
pub async fn unknown(connection: &mut Connection, source: &Source, cursor: &Cursor) -> Result<HashSet<u32>, PullError> {
    let mut unknown = HashSet::new();
    let mut by_key: HashMap<String, Vec<u32>> = HashMap::new();
    let mails = compared(connection, cursor).await?;
    for mail in &mails {
        match parse::header_key(&mime::headers(&mail.bytes)) {
            Some(key) => by_key.entry(key).or_default().push(mail.uid),
            None => {
                unknown.insert(mail.uid);
            }
        }
    }
    let keys: Vec<String> = by_key.keys().cloned().collect();
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let known = source.retry("looking for known mails", || source.store.known_external_ids(keys));
        let known = known.await?;
        for key in keys {
            let uids = &by_key[key];
            if known.get(key).copied().unwrap_or(0) < uids.len() as i64 {
                unknown.extend(uids);
            }
        }
    }
    tracing::info!(
        account.name = source.account,
        mails = mails.len(),
        unknown = unknown.len(),
        "mails compared"
    );
    Ok(unknown)
}

/// Headers of the mails since the first connection; over the whole range also in
/// the middle of it, because the counts must be whole.
async fn compared(connection: &mut Connection, cursor: &Cursor) -> Result<Vec<Fetched>, PullError> {
    let mut criteria = format!("UID 1:{}", cursor.compare_to);
    if cursor.since > Moment::from_ms(0) {
        // By days, in the server's time zone: two days earlier is early enough.
        let day = cursor.since.plus_ms(-2 * 24 * 60 * 60 * 1000).to_jiff();
        criteria.push_str(&day.strftime(" SINCE %d-%b-%Y").to_string());
    }
    let mut uids = connection.search(&criteria).await?;
    uids.retain(|uid| *uid <= cursor.compare_to);
    let mut mails = connection.key_headers(&uids).await?;
    mails.retain(|mail| mail.received_at.is_none_or(|received_at| received_at >= cursor.since));
    Ok(mails)
}

/// Marks of the last mails of a mailbox that is not read from its beginning.
async fn marks_of(connection: &mut Connection, opened: &Opened) -> Result<Vec<(u32, String)>, PullError> {
    if opened.exists == 0 {
        return Ok(Vec::new());
    }
    let lowest = opened.uid_next.saturating_sub(100).max(1);
    let mut uids = connection.search(&format!("UID {lowest}:*")).await?;
    uids.retain(|uid| *uid < opened.uid_next);
    let last = &uids[uids.len().saturating_sub(MARKS)..];
    let mut fetched = connection.key_headers(last).await?;
    fetched.sort_by_key(|fetched| fetched.uid);
    Ok(fetched
        .iter()
        .map(|fetched| (fetched.uid, mark(&fetched.bytes)))
        .collect())
}

/// What tells one mail from another under the same UID.
pub fn mark(bytes: &[u8]) -> String {
    let headers = mime::headers(bytes);
    let mut mark = parse::header_hash(&headers);
    mark.truncate(32);
    mark
}
