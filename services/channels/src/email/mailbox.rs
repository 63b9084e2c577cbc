//! Reads a mailbox completely (contract C7), one mail at a time.
//!
//! UIDs are only a cursor. It moves when a mail is durable, and only upwards.
//! Where UIDs have lost their meaning (another UIDVALIDITY, a lower UIDNEXT, or
//! another mail under a UID that we remember), everything that arrived since the
//! first connection is compared by its headers, and only what we do not know is
//! fetched. Nothing is deleted or marked, and no flag is looked at.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use model::time::Moment;
use rustls::ClientConfig;

use super::cursor::{self, Cursor};
use super::imap::{Broken, Connection, Fetched};
use super::mime;
use super::parse::Reader;
use super::settings::{Imap, Since};
use crate::channel::{Input, Parsed, PullError, Unparsed};
use crate::pull::Source;

/// IDLE is taken up anew before routers and servers forget the connection.
const IDLE_LONGEST: Duration = Duration::from_secs(5 * 60);
/// So often the account is seen while nothing arrives.
const SEEN_EVERY: Duration = Duration::from_secs(30);
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
    /// The mail that is being read, and how often that was begun.
    attempt: (u32, u32),
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
            let mut waiting = uids.len();
            source.seen(waiting).await;
            if uids.is_empty() {
                self.wait(&mut connection, source).await?;
                continue;
            }
            for uid in uids {
                let is_new = uid > cursor.compare_to;
                let is_wanted = is_new || unknown.as_ref().is_none_or(|unknown| unknown.contains(&uid));
                let mark = match is_wanted {
                    true => self.take(&mut connection, source, &cursor, uid).await?,
                    false => None,
                };
                waiting -= 1;
                cursor.advance(uid, mark);
                // What is passed over in a comparison is written with the next one.
                if !is_wanted && waiting > 0 {
                    continue;
                }
                if !source.move_cursor(&cursor).await? {
                    return Ok(());
                }
                source.seen(waiting).await;
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

    /// Makes one mail durable, or parks it. Its mark; `None` if there is none.
    async fn take(
        &self,
        connection: &mut Connection,
        source: &Source,
        cursor: &Cursor,
        uid: u32,
    ) -> Result<Option<String>, PullError> {
        let url = self.url(cursor.uid_validity, uid);
        if self.begin_attempt(uid) > MAX_ATTEMPTS {
            let kept =
                format!("nothing of this mail was kept, because the server failed {MAX_ATTEMPTS} times to give it");
            let mut input = input(&url, url.clone().into_bytes(), now());
            input.headers.push((INCOMPLETE.to_owned(), kept));
            park_incomplete(source, &input).await?;
            return Ok(None);
        }
        let Some(fetched) = fetch(connection, cursor, uid).await? else {
            return Ok(None);
        };
        // What takes long from here on is not the server's fault.
        self.forget_attempt();
        let mark = cursor::mark(&fetched.bytes);
        // A server's clock may be ahead of ours.
        let received_at = fetched.received_at.unwrap_or_else(now).min(now());
        let is_whole = !is_too_large(&fetched);
        let mut input = input(&url, fetched.bytes, received_at);
        if is_whole {
            source.accept(&input, || self.parse(&input)).await?;
        } else {
            let kept = "only the beginning of this mail was kept, because it is larger than 25 MiB";
            input.headers.push((INCOMPLETE.to_owned(), kept.to_owned()));
            park_incomplete(source, &input).await?;
        }
        Ok(Some(mark))
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

impl From<Broken> for PullError {
    fn from(broken: Broken) -> Self {
        Self { reason: broken.0 }
    }
}

/// A mail, or the beginning of one that is too large. `None` if it is gone, or
/// older than what is compared.
async fn fetch(connection: &mut Connection, cursor: &Cursor, uid: u32) -> Result<Option<Fetched>, PullError> {
    let Some(outline) = connection.outline(uid).await? else {
        return gone(connection, uid).await;
    };
    let is_older = outline
        .received_at
        .is_some_and(|received_at| received_at < cursor.since);
    if is_older && uid <= cursor.compare_to {
        return Ok(None);
    }
    let fetched = match is_too_large(&outline) {
        true => connection.beginning(uid).await?,
        false => connection.mail(uid).await?,
    };
    match fetched {
        Some(fetched) => Ok(Some(Fetched {
            size: outline.size,
            received_at: fetched.received_at.or(outline.received_at),
            ..fetched
        })),
        None => gone(connection, uid).await,
    }
}

fn is_too_large(fetched: &Fetched) -> bool {
    fetched.size.is_some_and(|size| size as usize > mime::MAX_BYTES)
}

/// Nothing was given for this UID: moved or deleted in the meantime, or the
/// server cannot say.
async fn gone(connection: &mut Connection, uid: u32) -> Result<Option<Fetched>, PullError> {
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
