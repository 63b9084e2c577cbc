//! Reads a mailbox completely (contract C7), one mail at a time.
//!
//! UIDs are only a cursor. It moves when a mail is durable, and only upwards.
//! Where UIDs have lost their meaning (another UIDVALIDITY, a lower UIDNEXT, or
//! another mail under a UID that we remember), everything that arrived since the
//! first connection is compared by its headers, and only what we do not know is
//! fetched. Nothing is deleted or marked, and no flag is looked at.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use model::time::Moment;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use super::imap::{Broken, Connection, Fetched, Opened};
use super::mime;
use super::parse::{self, Reader};
use super::settings::{Imap, Since};
use crate::backoff;
use crate::channel::{Input, Parsed, PullError, Unparsed};
use crate::inbox::Arrival;
use crate::pull::Source;

/// IDLE is taken up anew before routers and servers forget the connection.
const IDLE_LONGEST: Duration = Duration::from_secs(5 * 60);
/// So often the account is seen while nothing arrives.
const SEEN_EVERY: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A mail that breaks the connection so often is parked unread.
const MAX_ATTEMPTS: u32 = 5;
/// After so many failures in a row IDLE, or comparing, is done without.
const MAX_FAILURES: u32 = 3;
/// UIDs of which the cursor remembers what they were.
const MARKS: usize = 3;

/// Reads one account's mailbox.
pub struct Mailbox {
    pub settings: Imap,
    pub since: Since,
    pub tls: Arc<ClientConfig>,
    pub reader: Arc<Reader>,
    /// What outlives a connection.
    pub memory: Mutex<Memory>,
}

/// What one connection learns for the next.
#[derive(Debug, Default)]
pub struct Memory {
    idle_failures: u32,
    comparison_failures: u32,
    /// The mail that is being read, and how often that was begun.
    attempt: (u32, u32),
}

/// How far the mailbox is read; kept in the store as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    uid_validity: u32,
    last_uid: u32,
    /// When reading began: older mail is none of ours when mails are compared.
    since: Moment,
    /// Up to this UID, mails are compared and not simply new; 0 for none.
    compare_to: u32,
    /// The latest UIDs and what they were, to notice that UIDs were given anew.
    marks: Vec<(u32, String)>,
}

impl Mailbox {
    /// Reads until the connection breaks or the lease is lost.
    pub async fn read(&self, source: &Source) -> Result<(), PullError> {
        let mut connection = Connection::open(&self.settings, &self.tls).await?;
        let opened = connection.examine(&self.settings.mailbox).await?;
        let mut cursor = match load(source).await? {
            Some(cursor) => cursor,
            None => self.first_cursor(&mut connection, &opened).await?,
        };
        if have_uids_changed(&mut connection, &opened, &cursor).await? {
            tracing::warn!(
                account.name = source.account,
                "uids of the mailbox have changed, comparing mails"
            );
            cursor.begin_comparison(&opened);
        }
        if !save(source, &cursor).await? {
            return Ok(());
        }
        let unknown = match cursor.is_comparing() {
            true => self.unknown(&mut connection, source, &cursor).await?,
            false => None,
        };
        loop {
            let uids = connection.above(cursor.last_uid).await?;
            let mut waiting = uids.len();
            seen(source, waiting).await;
            if uids.is_empty() {
                self.wait(&mut connection, source).await?;
                continue;
            }
            for uid in uids {
                let is_wanted =
                    uid > cursor.compare_to || unknown.as_ref().is_none_or(|unknown| unknown.contains(&uid));
                let mark = match is_wanted {
                    true => self.take(&mut connection, source, &cursor, uid).await?,
                    false => None,
                };
                waiting -= 1;
                cursor.advance(uid, mark);
                // What is passed over in a comparison is written with the next one.
                if (is_wanted || waiting == 0) && !save(source, &cursor).await? {
                    return Ok(());
                }
                if is_wanted {
                    seen(source, waiting).await;
                }
            }
        }
    }

    async fn first_cursor(&self, connection: &mut Connection, opened: &Opened) -> Result<Cursor, PullError> {
        let highest = opened.uid_next.saturating_sub(1);
        let cursor = |last_uid: u32, since: Moment, compare_to: u32| Cursor {
            uid_validity: opened.uid_validity,
            last_uid,
            since,
            compare_to,
            marks: Vec::new(),
        };
        Ok(match self.since {
            Since::All => cursor(0, Moment::from_ms(0), 0),
            // Compared with a store that knows nothing of it.
            Since::At(moment) => cursor(0, moment, highest),
            Since::Now => {
                // INTERNALDATE has whole seconds.
                let now = now();
                let second = now.plus_ms(-(now.as_ms().rem_euclid(1000)));
                let mut cursor = cursor(highest, second, 0);
                cursor.marks = marks_of(connection, opened).await?;
                cursor
            }
        })
    }

    /// Makes one mail durable, or parks it. Its mark; `None` if it is gone.
    async fn take(
        &self,
        connection: &mut Connection,
        source: &Source,
        cursor: &Cursor,
        uid: u32,
    ) -> Result<Option<String>, PullError> {
        let url = self.url(cursor.uid_validity, uid);
        if self.begin_attempt(uid) > MAX_ATTEMPTS {
            let reason =
                format!("the server failed {MAX_ATTEMPTS} times to give this mail; it is still in the mailbox");
            park(source, &input(&url, url.clone().into_bytes(), now()), &reason).await?;
            return Ok(None);
        }
        let Some(outline) = connection.outline(uid).await? else {
            return gone(connection, uid).await;
        };
        let is_older = outline
            .received_at
            .is_some_and(|received_at| received_at < cursor.since);
        if is_older && uid <= cursor.compare_to {
            return Ok(None);
        }
        let is_too_large = outline.size.is_some_and(|size| size as usize > mime::MAX_BYTES);
        let fetched = match is_too_large {
            true => connection.beginning(uid).await?,
            false => connection.mail(uid).await?,
        };
        let Some(fetched) = fetched else {
            return gone(connection, uid).await;
        };
        // What takes long from here on is not the server's fault.
        self.forget_attempt();
        let mark = mark(&fetched.bytes);
        // A server's clock may be ahead of ours.
        let received_at = fetched
            .received_at
            .or(outline.received_at)
            .unwrap_or_else(now)
            .min(now());
        let input = input(&url, fetched.bytes, received_at);
        match is_too_large {
            true => {
                let reason = "the mail is larger than 25 MiB; here is its beginning, all of it is in the mailbox";
                park(source, &input, reason).await?;
            }
            false => self.accept(source, &input).await?,
        }
        Ok(Some(mark))
    }

    /// Parses and publishes, for as long as it takes (C1). What cannot be parsed is
    /// parked (C6).
    async fn accept(&self, source: &Source, input: &Input) -> Result<(), PullError> {
        let mut failures = 0;
        loop {
            let parsed = match self.parse(input).await {
                Ok(parsed) => parsed,
                Err(reason) => return park(source, input, &reason).await,
            };
            let inbox = &source.inbox;
            let accepted = inbox.accept(&source.account, &source.channel, input, parsed.events, Arrival::Pulled);
            match accepted.await {
                Ok(()) => return Ok(()),
                Err(bus::Error::Malformed(reason)) => return park(source, input, &reason).await,
                Err(bus::Error::Unavailable(error)) => wait_for_log(source, &error, &mut failures).await,
                Err(error @ bus::Error::Settings(_)) => {
                    return Err(PullError {
                        reason: error.to_string(),
                    });
                }
            }
        }
    }

    /// A panic of the parser costs this mail, not the mailbox.
    async fn parse(&self, input: &Input) -> Result<Parsed, String> {
        let (reader, body) = (Arc::clone(&self.reader), input.body.clone());
        match tokio::task::spawn_blocking(move || reader.parse(&body)).await {
            Ok(Ok(parsed)) => Ok(parsed),
            Ok(Err(Unparsed::Parked { reason } | Unparsed::Rejected { reason })) => Err(reason),
            Err(_) => Err("the parser failed on it".to_owned()),
        }
    }

    /// Until there may be something new.
    async fn wait(&self, connection: &mut Connection, source: &Source) -> Result<(), PullError> {
        let is_idle = self.settings.idle && connection.has_idle && self.memory().idle_failures < MAX_FAILURES;
        let waiting = async {
            if is_idle {
                return connection.idle(IDLE_LONGEST).await;
            }
            tokio::time::sleep(Duration::from_secs(self.settings.poll_seconds)).await;
            Ok(())
        };
        tokio::pin!(waiting);
        let mut ticks = tokio::time::interval(SEEN_EVERY);
        ticks.tick().await;
        loop {
            tokio::select! {
                waited = &mut waiting => {
                    let failures = &mut self.memory().idle_failures;
                    *failures = if waited.is_ok() && is_idle { 0 } else { *failures + u32::from(waited.is_err()) };
                    return Ok(waited?);
                }
                _ = ticks.tick() => seen(source, 0).await,
            }
        }
    }

    /// What to fetch of the mails that are compared. `None`, which is all of it,
    /// where the server fails to give the headers: one broken mail stops no other.
    async fn unknown(
        &self,
        connection: &mut Connection,
        source: &Source,
        cursor: &Cursor,
    ) -> Result<Option<HashSet<u32>>, PullError> {
        if self.memory().comparison_failures >= MAX_FAILURES {
            tracing::warn!(account.name = source.account, "mails cannot be compared, fetching all");
            return Ok(None);
        }
        self.memory().comparison_failures += 1;
        let unknown = unknown(connection, source, cursor).await?;
        self.memory().comparison_failures = 0;
        Ok(Some(unknown))
    }

    /// How often this mail has been begun, this time included.
    fn begin_attempt(&self, uid: u32) -> u32 {
        let mut memory = self.memory();
        memory.attempt = match memory.attempt {
            (last, times) if last == uid => (uid, times + 1),
            _ => (uid, 1),
        };
        memory.attempt.1
    }

    /// The mail was given, or we were told to stop.
    pub fn forget_attempt(&self) {
        self.memory().attempt = (0, 0);
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// RFC 5092, without the server: `imap:///INBOX;UIDVALIDITY=1/;UID=2`.
    fn url(&self, uid_validity: u32, uid: u32) -> String {
        let mut mailbox = String::new();
        for byte in self.settings.mailbox.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => mailbox.push(byte.into()),
                _ => mailbox.push_str(&format!("%{byte:02X}")),
            }
        }
        format!("imap:///{mailbox};UIDVALIDITY={uid_validity}/;UID={uid}")
    }
}

impl Cursor {
    fn is_comparing(&self) -> bool {
        self.last_uid < self.compare_to
    }

    /// UIDs mean nothing any more: begins anew, comparing what is there.
    fn begin_comparison(&mut self, opened: &Opened) {
        self.uid_validity = opened.uid_validity;
        self.last_uid = 0;
        self.compare_to = opened.uid_next.saturating_sub(1);
        self.marks.clear();
    }

    fn advance(&mut self, uid: u32, mark: Option<String>) {
        self.last_uid = uid;
        if let Some(mark) = mark {
            self.marks.push((uid, mark));
            let excess = self.marks.len().saturating_sub(MARKS);
            self.marks.drain(..excess);
        }
    }
}

impl From<Broken> for PullError {
    fn from(broken: Broken) -> Self {
        Self { reason: broken.0 }
    }
}

/// Removing Dovecot's `dovecot-uidlist` keeps UIDVALIDITY and numbers every mail
/// anew. So a lower UIDNEXT, another mail under a UID that we know, and a mail that
/// we know under a higher UID count too.
async fn have_uids_changed(connection: &mut Connection, opened: &Opened, cursor: &Cursor) -> Result<bool, PullError> {
    if opened.uid_validity != cursor.uid_validity || opened.uid_next <= cursor.last_uid {
        return Ok(true);
    }
    if cursor.marks.is_empty() || opened.exists == 0 {
        return Ok(false);
    }
    let uids: Vec<u32> = cursor.marks.iter().map(|(uid, _)| *uid).collect();
    let found = connection.key_headers(&uids).await?;
    if !found.is_empty() {
        let is_known = |fetched: &Fetched| cursor.marks.contains(&(fetched.uid, mark(&fetched.bytes)));
        return Ok(!found.iter().all(is_known));
    }
    // All of them moved or deleted by somebody, or numbered anew.
    let above = connection.above(cursor.last_uid).await?;
    let found = connection.key_headers(&above).await?;
    let marks: HashSet<&String> = cursor.marks.iter().map(|(_, mark)| mark).collect();
    Ok(found.iter().any(|fetched| marks.contains(&mark(&fetched.bytes))))
}

/// UIDs up to `compare_to` whose mails the store does not know: by the key of
/// their headers, all of those of which the mailbox has more than the store, and
/// all without a Message-ID. Fetching one too many is harmless (C2).
async fn unknown(connection: &mut Connection, source: &Source, cursor: &Cursor) -> Result<HashSet<u32>, PullError> {
    // Over the whole range also in the middle of it: the counts must be whole.
    let mut criteria = format!("UID 1:{}", cursor.compare_to);
    if cursor.since > Moment::from_ms(0) {
        // By days, in the server's time zone: two days earlier is early enough.
        let day = cursor.since.plus_ms(-2 * 24 * 60 * 60 * 1000).to_jiff();
        criteria.push_str(&day.strftime(" SINCE %d-%b-%Y").to_string());
    }
    let mut uids = connection.search(&criteria).await?;
    uids.retain(|uid| *uid <= cursor.compare_to);
    let mut unknown = HashSet::new();
    let mut by_key: HashMap<String, Vec<u32>> = HashMap::new();
    let headers = connection.key_headers(&uids).await?;
    for Fetched {
        uid,
        received_at,
        bytes,
        ..
    } in headers
    {
        if received_at.is_some_and(|received_at| received_at < cursor.since) {
            continue;
        }
        match parse::header_key(&mime::headers(&bytes)) {
            Some(key) => by_key.entry(key).or_default().push(uid),
            None => {
                unknown.insert(uid);
            }
        }
    }
    let keys: Vec<String> = by_key.keys().cloned().collect();
    for keys in keys.chunks(500) {
        let known = retry(source, "looking for known mails", || {
            source.store.known_external_ids(keys)
        })
        .await?;
        for key in keys {
            let uids = &by_key[key];
            if known.get(key).copied().unwrap_or(0) < uids.len() as i64 {
                unknown.extend(uids);
            }
        }
    }
    tracing::info!(
        account.name = source.account,
        mails = uids.len(),
        unknown = unknown.len(),
        "mails compared"
    );
    Ok(unknown)
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
fn mark(bytes: &[u8]) -> String {
    let headers = mime::headers(bytes);
    let mut mark = parse::header_hash(&headers);
    mark.truncate(32);
    mark
}

/// Nothing was given for this UID: moved or deleted in the meantime, or the
/// server cannot say.
async fn gone(connection: &mut Connection, uid: u32) -> Result<Option<String>, PullError> {
    let is_there = connection.search(&format!("UID {uid}")).await?.contains(&uid);
    match is_there {
        false => Ok(None),
        true => Err(PullError {
            reason: "the IMAP server names a mail and does not give it".to_owned(),
        }),
    }
}

fn input(url: &str, body: Vec<u8>, received_at: Moment) -> Input {
    Input {
        method: String::new(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: body.into(),
        received_at,
    }
}

async fn park(source: &Source, input: &Input, reason: &str) -> Result<(), PullError> {
    let mut failures = 0;
    loop {
        let parked = source
            .inbox
            .park(&source.account, &source.channel, input, reason, Arrival::Pulled);
        match parked.await {
            Ok(()) => return Ok(()),
            Err(bus::Error::Unavailable(error)) => wait_for_log(source, &error, &mut failures).await,
            Err(error) => {
                return Err(PullError {
                    reason: error.to_string(),
                });
            }
        }
    }
}

/// The mail waits where it is, and so do we.
async fn wait_for_log(source: &Source, error: &str, failures: &mut u32) {
    tracing::warn!(account.name = source.account, error, "mail waits for the event log");
    let wait = backoff::exponential(FIRST_WAIT, LONGEST_WAIT, *failures);
    *failures += 1;
    tokio::time::sleep(wait).await;
}

async fn load(source: &Source) -> Result<Option<Cursor>, PullError> {
    let cursor = retry(source, "reading the cursor", || source.store.cursor(&source.account)).await?;
    match cursor.map(serde_json::from_value).transpose() {
        Ok(cursor) => Ok(cursor),
        // Beginning anew would leave out mail, so a person must look.
        Err(error) => Err(PullError {
            reason: format!("the mailbox's cursor in the store cannot be read: {error}"),
        }),
    }
}

/// `false` if the lease is somebody else's.
async fn save(source: &Source, cursor: &Cursor) -> Result<bool, PullError> {
    let value = serde_json::to_value(cursor).map_err(|error| PullError {
        reason: error.to_string(),
    })?;
    retry(source, "moving the cursor", || {
        source.store.move_cursor(&source.lease, &source.account, &value)
    })
    .await
}

/// As long as the database is away.
async fn retry<T, F>(source: &Source, doing: &str, mut attempt: impl FnMut() -> F) -> Result<T, PullError>
where
    F: Future<Output = Result<T, store::Error>>,
{
    let mut failures = 0;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error @ store::Error::Unavailable { .. }) => {
                tracing::warn!(account.name = source.account, %error, doing, "mailbox waits for the database");
                let wait = backoff::exponential(FIRST_WAIT, LONGEST_WAIT, failures);
                failures += 1;
                tokio::time::sleep(wait).await;
            }
            Err(error) => {
                return Err(PullError {
                    reason: format!("{doing}: {error}"),
                });
            }
        }
    }
}

/// For pages and gauges only, so its failure stops nothing.
async fn seen(source: &Source, waiting: usize) {
    let noted = source.store.account_seen(&source.account, None, waiting as i64, now());
    if let Err(error) = noted.await {
        tracing::warn!(account.name = source.account, %error, "state of account not written");
    }
}

fn now() -> Moment {
    SystemTime::now().into()
}
