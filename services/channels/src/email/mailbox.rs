//! Reads a mailbox completely (contract C7), some mails at a time.
//!
//! UIDs are only a cursor. It moves when mails are durable, and only upwards.
//! Where UIDs have lost their meaning (another UIDVALIDITY, a lower UIDNEXT, or
//! another mail under a UID that we remember), everything that arrived since the
//! first connection is compared by its headers, and only what we do not know is
//! fetched. Nothing is deleted or marked, and no flag is looked at.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use model::time::Moment;
use rustls::ClientConfig;

use super::cursor::{self, Cursor};
use super::imap::{Broken, Connection, Fetched, set};
use super::mime;
use super::parse::Reader;
use super::settings::{Imap, Since};
use crate::channel::{Input, Parsed, PullError, Unparsed};
use crate::pull::Source;

/// IDLE is taken up anew before routers and servers forget the connection.
const IDLE_LONGEST: Duration = Duration::from_secs(5 * 60);
/// So often the account is seen while nothing arrives.
const SEEN_EVERY: Duration = Duration::from_secs(30);
/// Mails that are read together: the cursor moves once for all of them.
const MAILS_AT_ONCE: usize = 64;
/// So many bytes of them are held at once, unless a single mail has more.
const BYTES_AT_ONCE: u32 = 4 * 1024 * 1024;
/// A mail that breaks the connection so often is parked unread.
const MAX_ATTEMPTS: u32 = 5;
/// Header of a parked input that is not the whole mail: says what was kept, and
/// why no more. A half mail must not be taken for a whole one, when it is replayed.
const INCOMPLETE: &str = "incomplete";
/// After so many failures in a row IDLE, or comparing, is done without.
const MAX_FAILURES: u32 = 3;

/// Reads one account's mailbox.
pub struct Mailbox {
    pub settings: Imap,
    pub since: Since,
    /// Unless the connection is plain.
    pub tls: Option<Arc<ClientConfig>>,
    pub reader: Arc<Reader>,
    /// What outlives a connection.
    pub memory: Mutex<Memory>,
}

/// What one connection learns for the next.
#[derive(Debug, Default)]
pub struct Memory {
    idle_failures: u32,
    comparison_failures: u32,
    /// The mail that is being read alone, and how often that was begun.
    attempt: (u32, u32),
    /// Up to this UID mails are read alone: one of them may break the connection.
    alone_to: u32,
}

impl Mailbox {
    /// Logs in and opens the mailbox, without reading any mail.
    pub async fn try_out(&self) -> Result<String, String> {
        let opened = async {
            let mut connection = self.connect().await?;
            connection.examine(&self.settings.mailbox).await
        };
        let opened = opened.await.map_err(|broken| broken.0)?;
        Ok(format!(
            "IMAP: mailbox {} opened, {} mails in it",
            self.settings.mailbox, opened.exists
        ))
    }

    async fn connect(&self) -> Result<Connection, Broken> {
        Connection::open(&self.settings, self.tls.as_ref()).await
    }

    /// Reads until the connection breaks or the lease is lost.
    pub async fn read(&self, source: &Source) -> Result<(), PullError> {
        let mut connection = self.connect().await?;
        let mut cursor = self.cursor(&mut connection, source).await?;
        if !source.move_cursor(&cursor).await? {
            return Ok(());
        }
        let unknown = match cursor.is_comparing() {
            true => self.unknown(&mut connection, source, &cursor).await?,
            false => None,
        };
        loop {
            let uids = connection.above(cursor.last_uid).await?;
            source.seen(uids.len()).await;
            if uids.is_empty() {
                self.wait(&mut connection, source).await?;
                continue;
            }
            let mut rest = uids.as_slice();
            while let [first, ..] = rest {
                let (uids, behind) = rest.split_at(self.at_once(*first).min(rest.len()));
                let is_wanted = |uid: &u32| {
                    *uid > cursor.compare_to || unknown.as_ref().is_none_or(|unknown| unknown.contains(uid))
                };
                let wanted: Vec<u32> = uids.iter().copied().filter(is_wanted).collect();
                let mut marks = self.take(&mut connection, source, &cursor, &wanted).await?;
                for uid in uids {
                    cursor.advance(*uid, marks.remove(uid));
                }
                rest = behind;
                // What is passed over in a comparison is written with the next one.
                if wanted.is_empty() && !rest.is_empty() {
                    continue;
                }
                if !source.move_cursor(&cursor).await? {
                    return Ok(());
                }
                source.seen(rest.len()).await;
            }
        }
    }

    /// Opens the mailbox; where reading goes on.
    async fn cursor(&self, connection: &mut Connection, source: &Source) -> Result<Cursor, PullError> {
        let opened = connection.examine(&self.settings.mailbox).await?;
        let Some(mut cursor) = source.cursor::<Cursor>().await? else {
            return Cursor::first(self.since, connection, &opened).await;
        };
        if !cursor.fits(connection, &opened).await? {
            tracing::warn!(
                account.name = source.account,
                "uids of the mailbox have changed, comparing mails"
            );
            cursor.begin_comparison(&opened);
        }
        Ok(cursor)
    }

    /// Makes mails durable, or parks them. Their marks; those of which nothing is kept
    /// have none.
    async fn take(
        &self,
        connection: &mut Connection,
        source: &Source,
        cursor: &Cursor,
        uids: &[u32],
    ) -> Result<HashMap<u32, String>, PullError> {
        match uids {
            // Says nothing of the one that may break the connection.
            [] => return Ok(HashMap::new()),
            [uid] if self.begin_attempt(*uid) > MAX_ATTEMPTS => {
                self.give_up(source, &self.url(cursor.uid_validity, *uid)).await?;
                return Ok(HashMap::new());
            }
            [_] => {}
            [.., last] => self.memory().alone_to = *last,
        }
        let mut marks = HashMap::new();
        let outlines = outlines(connection, cursor, uids).await?;
        let mut groups = by_size(&outlines).peekable();
        while let Some(outlines) = groups.next() {
            let mails = fetch(connection, outlines).await?;
            if groups.peek().is_none() {
                // What takes long from here on is not the server's fault.
                self.were_given(uids);
            }
            marks.extend(mails.iter().map(|mail| (mail.uid, cursor::mark(&mail.bytes))));
            // One behind the other: an answer may follow what it answers.
            for mail in mails {
                self.keep(source, cursor, mail).await?;
            }
        }
        // All of them may be gone.
        self.were_given(uids);
        Ok(marks)
    }

    /// Publishes one mail, or parks it.
    async fn keep(&self, source: &Source, cursor: &Cursor, mail: Fetched) -> Result<(), PullError> {
        let url = self.url(cursor.uid_validity, mail.uid);
        // A server's clock may be ahead of ours.
        let received_at = mail.received_at.unwrap_or_else(now).min(now());
        let is_whole = !is_too_large(&mail);
        let mut input = input(&url, mail.bytes, received_at);
        if is_whole {
            return source.accept(&input, || self.parse(&input)).await;
        }
        let kept = "only the beginning of this mail was kept, because it is larger than 25 MiB";
        input.headers.push((INCOMPLETE.to_owned(), kept.to_owned()));
        park_incomplete(source, &input).await
    }

    /// The server does not give a mail.
    async fn give_up(&self, source: &Source, url: &str) -> Result<(), PullError> {
        let kept = format!("nothing of this mail was kept, because the server failed {MAX_ATTEMPTS} times to give it");
        let mut input = input(url, url.as_bytes().to_vec(), now());
        input.headers.push((INCOMPLETE.to_owned(), kept));
        park_incomplete(source, &input).await
    }

    /// A panic of the parser costs this mail, not the mailbox.
    async fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        let (reader, body) = (Arc::clone(&self.reader), input.body.clone());
        let parsing = tokio::task::spawn_blocking(move || reader.parse(&body));
        parsing.await.unwrap_or_else(|_| {
            Err(Unparsed::Parked {
                reason: "the parser failed on it".to_owned(),
            })
        })
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
                _ = ticks.tick() => source.seen(0).await,
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
        let unknown = cursor::unknown(connection, source, cursor).await?;
        self.memory().comparison_failures = 0;
        Ok(Some(unknown))
    }

    /// How many mails are read together from this one on.
    fn at_once(&self, uid: u32) -> usize {
        if uid <= self.memory().alone_to {
            1
        } else {
            MAILS_AT_ONCE
        }
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

    /// None of these breaks the connection; of those behind a single one that may
    /// still be so.
    fn were_given(&self, uids: &[u32]) {
        match uids.len() {
            0 | 1 => self.memory().attempt = (0, 0),
            _ => self.forget_attempt(),
        }
    }

    /// We were told to stop: nothing is the server's fault.
    pub fn forget_attempt(&self) {
        let mut memory = self.memory();
        memory.attempt = (0, 0);
        memory.alone_to = 0;
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

impl From<Broken> for PullError {
    fn from(broken: Broken) -> Self {
        Self { reason: broken.0 }
    }
}

/// Outlines of mails, without those that are gone, or older than what is compared.
async fn outlines(connection: &mut Connection, cursor: &Cursor, uids: &[u32]) -> Result<Vec<Fetched>, PullError> {
    let mut outlines = connection.outlines(uids).await?;
    check_gone(connection, uids, &outlines).await?;
    outlines.retain(|outline| {
        let is_older = outline
            .received_at
            .is_some_and(|received_at| received_at < cursor.since);
        !is_older || outline.uid > cursor.compare_to
    });
    Ok(outlines)
}

/// Neighbours together, as many as are held at once; one that is too large is alone.
fn by_size(outlines: &[Fetched]) -> impl Iterator<Item = &[Fetched]> {
    let mut held: u32 = 0;
    outlines.chunk_by(move |one, next| {
        held = held.saturating_add(one.size.unwrap_or(BYTES_AT_ONCE));
        let is_together = held.saturating_add(next.size.unwrap_or(BYTES_AT_ONCE)) <= BYTES_AT_ONCE;
        if !is_together {
            held = 0;
        }
        is_together
    })
}

/// The mails of these outlines, or the beginning of one that is too large; without
/// those that are gone.
async fn fetch(connection: &mut Connection, outlines: &[Fetched]) -> Result<Vec<Fetched>, PullError> {
    let uids: Vec<u32> = outlines.iter().map(|outline| outline.uid).collect();
    let mut mails = match outlines {
        [outline] if is_too_large(outline) => connection.beginning(outline.uid).await?.into_iter().collect(),
        _ => connection.mails(&uids).await?,
    };
    check_gone(connection, &uids, &mails).await?;
    for mail in &mut mails {
        if let Some(outline) = outlines.iter().find(|outline| outline.uid == mail.uid) {
            mail.size = outline.size;
            mail.received_at = mail.received_at.or(outline.received_at);
        }
    }
    Ok(mails)
}

fn is_too_large(fetched: &Fetched) -> bool {
    fetched.size.is_some_and(|size| size as usize > mime::MAX_BYTES)
}

/// What was not given is moved or deleted in the meantime, or the server cannot say.
async fn check_gone(connection: &mut Connection, uids: &[u32], given: &[Fetched]) -> Result<(), PullError> {
    let mut missing = uids.to_vec();
    missing.retain(|uid| !given.iter().any(|given| given.uid == *uid));
    if missing.is_empty() {
        return Ok(());
    }
    let there = connection.search(&format!("UID {}", set(&missing))).await?;
    match there.iter().any(|uid| missing.contains(uid)) {
        false => Ok(()),
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

/// Why this input is no whole mail, and what to do; `None` if it is one.
pub fn incomplete(input: &Input) -> Option<String> {
    let kept = input.header(INCOMPLETE)?;
    Some(format!("{kept}: fetch it from the mailbox ({})", input.url))
}

async fn park_incomplete(source: &Source, input: &Input) -> Result<(), PullError> {
    source.park(input, &incomplete(input).unwrap_or_default()).await
}

fn now() -> Moment {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_mail_says_what_to_do() {
        let url = "imap:///INBOX;UIDVALIDITY=1/;UID=2";
        let mut input = input(url, b"Subject: x\r\n\r\nhel".to_vec(), Moment::from_ms(0));
        assert_eq!(incomplete(&input), None);
        input
            .headers
            .push((INCOMPLETE.to_owned(), "only half was kept".to_owned()));
        assert_eq!(
            incomplete(&input).as_deref(),
            Some("only half was kept: fetch it from the mailbox (imap:///INBOX;UIDVALIDITY=1/;UID=2)")
        );
    }
}
