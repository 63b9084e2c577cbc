//! One IMAP connection, read-only: the mailbox is opened by EXAMINE, so that
//! reading changes nothing in it.
//!
//! Every command has a time-out and ends with its own tagged answer or as
//! [`Broken`]; an answer without the mail that was asked for therefore means that
//! the mail is gone, not that the connection is.

use std::sync::Arc;
use std::time::Duration;

use async_imap::imap_proto::{Response, Status};
use async_imap::{Client, Session};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::answer::Answer;
pub use super::answer::Fetched;
use super::settings::{Imap, Tls};

/// For a command whose answer is lines.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// For a command whose answer holds mails.
const MAIL_TIMEOUT: Duration = Duration::from_secs(300);
/// So much of a mail that is too large is kept.
const BEGINNING_BYTES: usize = 64 * 1024;
/// Mails whose headers are asked for at once.
const HEADERS_AT_ONCE: usize = 200;

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A logged-in connection.
pub struct Connection {
    session: Session<Stream>,
    pub has_idle: bool,
}

/// What the server says of a mailbox when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub uid_validity: u32,
    pub uid_next: u32,
    pub exists: u32,
}

/// The connection can't be used any further; says why, without secrets and
/// without anything of a mail.
#[derive(Debug)]
pub struct Broken(pub String);

impl Connection {
    /// Connects and logs in.
    pub async fn open(settings: &Imap, tls: Option<&Arc<ClientConfig>>) -> Result<Self, Broken> {
        let mut client = within(COMMAND_TIMEOUT, "connecting", connect(settings, tls)).await??;
        if settings.tls == Tls::Upgraded {
            client = within(COMMAND_TIMEOUT, "starting TLS", start_tls(client, settings, tls)).await??;
        }
        let login = client.login(&settings.user, settings.password.expose_secret());
        let session = match within(COMMAND_TIMEOUT, "logging in", login).await? {
            Ok(session) => session,
            Err((async_imap::error::Error::No(_) | async_imap::error::Error::Bad(_), _)) => {
                return Err(Broken("the IMAP server refuses imap.user and imap.password".to_owned()));
            }
            Err((error, _)) => return Err(Broken(describe("logging in", &error))),
        };
        let mut connection = Self {
            session,
            has_idle: false,
        };
        let answers = connection.command("CAPABILITY", COMMAND_TIMEOUT).await?;
        connection.has_idle = answers.iter().any(|answer| matches!(answer, Answer::HasIdle));
        Ok(connection)
    }

    /// Opens a mailbox to read it.
    pub async fn examine(&mut self, mailbox: &str) -> Result<Opened, Broken> {
        let name = mailbox.replace('\\', "\\\\").replace('"', "\\\"");
        let answers = self.command(&format!("EXAMINE \"{name}\""), COMMAND_TIMEOUT).await?;
        let (mut uid_validity, mut uid_next, mut exists) = (None, None, 0);
        for answer in answers {
            match answer {
                Answer::Exists(count) => exists = count,
                Answer::UidValidity(value) => uid_validity = Some(value),
                Answer::UidNext(value) => uid_next = Some(value),
                _ => {}
            }
        }
        let Some(uid_validity) = uid_validity else {
            return Err(Broken("the IMAP server gives no UIDVALIDITY".to_owned()));
        };
        let uid_next = match uid_next {
            Some(uid_next) => uid_next,
            None => self
                .search("UID 1:*")
                .await?
                .last()
                .map_or(1, |highest| highest.saturating_add(1)),
        };
        Ok(Opened {
            uid_validity,
            uid_next,
            exists,
        })
    }

    /// UIDs above this one in their order. Nothing that arrived while the server
    /// answered is missed: it is asked again as long as it announces more.
    pub async fn above(&mut self, uid: u32) -> Result<Vec<u32>, Broken> {
        // Lets the server take up what is new; in IDLE it has told already.
        self.command("NOOP", COMMAND_TIMEOUT).await?;
        loop {
            let search = format!("UID SEARCH UID {}:*", uid.saturating_add(1));
            let answers = self.command(&search, MAIL_TIMEOUT).await?;
            let has_grown = answers.iter().any(Answer::is_exists);
            if !has_grown {
                let mut found = uids(answers);
                // `n:*` always names the highest, though it be below n.
                found.retain(|found| *found > uid);
                return Ok(found);
            }
        }
    }

    /// UIDs of what matches, in their order.
    pub async fn search(&mut self, criteria: &str) -> Result<Vec<u32>, Broken> {
        let answers = self.command(&format!("UID SEARCH {criteria}"), MAIL_TIMEOUT).await?;
        Ok(uids(answers))
    }

    /// Sizes and arrivals of mails, in the order of their UIDs. What is gone is missing.
    pub async fn outlines(&mut self, uids: &[u32]) -> Result<Vec<Fetched>, Broken> {
        self.fetch_all(uids, "UID RFC822.SIZE INTERNALDATE", COMMAND_TIMEOUT)
            .await
    }

    /// Whole mails, in the order of their UIDs. What is gone is missing.
    pub async fn mails(&mut self, uids: &[u32]) -> Result<Vec<Fetched>, Broken> {
        self.fetch_all(uids, "UID INTERNALDATE BODY.PEEK[]", MAIL_TIMEOUT).await
    }

    /// The beginning of a mail that is too large; `None` if it is gone.
    pub async fn beginning(&mut self, uid: u32) -> Result<Option<Fetched>, Broken> {
        let set = uid.to_string();
        let items = format!("UID INTERNALDATE BODY.PEEK[]<0.{BEGINNING_BYTES}>");
        let fetched = self.fetch(&set, &items, MAIL_TIMEOUT).await?;
        Ok(fetched
            .into_iter()
            .find(|fetched| fetched.uid == uid)
            .map(|mut fetched| {
                fetched.bytes.truncate(BEGINNING_BYTES);
                fetched
            }))
    }

    /// The headers by which mails are compared. What is gone is missing.
    pub async fn key_headers(&mut self, uids: &[u32]) -> Result<Vec<Fetched>, Broken> {
        let mut all = Vec::with_capacity(uids.len());
        for uids in uids.chunks(HEADERS_AT_ONCE) {
            let items = "UID INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM)]";
            all.extend(self.fetch_all(uids, items, MAIL_TIMEOUT).await?);
        }
        Ok(all)
    }

    /// Waits until the mailbox grows, at most so long (RFC 2177).
    pub async fn idle(&mut self, longest: Duration) -> Result<(), Broken> {
        let sent = within(COMMAND_TIMEOUT, "IDLE", self.session.run_command("IDLE")).await?;
        let tag = sent.map_err(|error| Broken(describe("IDLE", &error)))?;
        let mut has_grown = false;
        loop {
            match self.answer("IDLE", Instant::now() + COMMAND_TIMEOUT).await? {
                Answer::Continue => break,
                Answer::Done { tag: ended, .. } if ended == tag => {
                    return Err(Broken("the IMAP server refuses IDLE".to_owned()));
                }
                answer => has_grown |= answer.is_exists(),
            }
        }
        let deadline = Instant::now() + longest;
        while !has_grown {
            match timeout_at(deadline, self.answer("IDLE", deadline + COMMAND_TIMEOUT)).await {
                Ok(answer) => has_grown = answer?.is_exists(),
                Err(_) => break,
            }
        }
        let sent = within(COMMAND_TIMEOUT, "DONE", self.session.run_command_untagged("DONE")).await?;
        sent.map_err(|error| Broken(describe("DONE", &error)))?;
        loop {
            let answer = self.answer("DONE", Instant::now() + COMMAND_TIMEOUT).await?;
            if matches!(answer, Answer::Done { tag: ended, .. } if ended == tag) {
                return Ok(());
            }
        }
    }

    /// The same of several mails; a server may speak of others too, and of one twice.
    async fn fetch_all(&mut self, uids: &[u32], items: &str, longest: Duration) -> Result<Vec<Fetched>, Broken> {
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        let mut fetched = self.fetch(&set(uids), items, longest).await?;
        fetched.retain(|fetched| uids.contains(&fetched.uid));
        fetched.sort_by_key(|fetched| fetched.uid);
        fetched.dedup_by_key(|fetched| fetched.uid);
        Ok(fetched)
    }

    async fn fetch(&mut self, set: &str, items: &str, longest: Duration) -> Result<Vec<Fetched>, Broken> {
        let answers = self.command(&format!("UID FETCH {set} ({items})"), longest).await?;
        let fetched = answers.into_iter().filter_map(|answer| match answer {
            Answer::Fetched(fetched) => Some(fetched),
            _ => None,
        });
        Ok(fetched.collect())
    }

    /// Sends a command and collects the answers up to its own tagged one.
    async fn command(&mut self, command: &str, longest: Duration) -> Result<Vec<Answer>, Broken> {
        let doing = command.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let deadline = Instant::now() + longest;
        let sent = within(COMMAND_TIMEOUT, &doing, self.session.run_command(command)).await?;
        let tag = sent.map_err(|error| Broken(describe(&doing, &error)))?;
        let mut answers = Vec::new();
        loop {
            match self.answer(&doing, deadline).await? {
                Answer::Done {
                    tag: ended,
                    is_ok,
                    words,
                } if ended == tag => {
                    return match is_ok {
                        true => Ok(answers),
                        false => Err(Broken(format!("the IMAP server refuses {doing}: {words}"))),
                    };
                }
                answer => answers.push(answer),
            }
        }
    }

    async fn answer(&mut self, doing: &str, deadline: Instant) -> Result<Answer, Broken> {
        match timeout_at(deadline, self.session.read_response()).await {
            Ok(Ok(Some(answer))) => match Answer::of(answer.parsed()) {
                Answer::GoodBye => Err(Broken(format!("the IMAP server said good-bye during {doing}"))),
                answer => Ok(answer),
            },
            Ok(Ok(None)) => Err(Broken(format!("the IMAP server closed the connection during {doing}"))),
            Ok(Err(error)) => Err(Broken(describe_io(doing, &error))),
            Err(_) => Err(Broken(format!("the IMAP server does not answer {doing}"))),
        }
    }
}

async fn connect(settings: &Imap, tls: Option<&Arc<ClientConfig>>) -> Result<Client<Stream>, Broken> {
    let tcp = TcpStream::connect((settings.host.as_str(), settings.port()))
        .await
        .map_err(|error| Broken(describe_io("connecting", &error)))?;
    // Commands are short and answers awaited.
    let _ = tcp.set_nodelay(true);
    let stream = match settings.tls {
        Tls::Implicit => secure(tcp, settings, tls).await?,
        Tls::Upgraded | Tls::None => Either::Left(tcp),
    };
    let mut client = Client::new(stream);
    match client.read_response().await {
        Ok(Some(greeting)) => match greeting.parsed() {
            Response::Data { status: Status::Ok, .. } => Ok(client),
            _ => Err(Broken("the IMAP server does not take the connection".to_owned())),
        },
        Ok(None) => Err(Broken("the IMAP server closed the connection".to_owned())),
        Err(error) => Err(Broken(describe_io("connecting", &error))),
    }
}

/// What stands in the buffer behind the answer is thrown away with the client,
/// so that nobody can slip commands in before TLS.
async fn start_tls(
    mut client: Client<Stream>,
    settings: &Imap,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Client<Stream>, Broken> {
    let started = client.run_command_and_check_ok("STARTTLS", None).await;
    started.map_err(|error| Broken(describe("STARTTLS", &error)))?;
    match client.into_inner() {
        Either::Left(tcp) => Ok(Client::new(secure(tcp, settings, tls).await?)),
        Either::Right(_) => Err(Broken("TLS is on already".to_owned())),
    }
}

async fn secure(tcp: TcpStream, settings: &Imap, tls: Option<&Arc<ClientConfig>>) -> Result<Stream, Broken> {
    let name = ServerName::try_from(settings.host.clone());
    let name = name.map_err(|_| Broken("imap.host is no name that a certificate can have".to_owned()))?;
    let Some(tls) = tls else {
        return Err(Broken("TLS was not prepared".to_owned()));
    };
    let secured = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
    let stream = secured.map_err(|error| Broken(format!("no TLS with the IMAP server: {error}")))?;
    Ok(Either::Right(Box::new(stream)))
}

async fn within<T>(longest: Duration, doing: &str, future: impl Future<Output = T>) -> Result<T, Broken> {
    timeout(longest, future)
        .await
        .map_err(|_| Broken(format!("the IMAP server does not answer {doing}")))
}

fn describe(doing: &str, error: &async_imap::error::Error) -> String {
    match error {
        async_imap::error::Error::Io(error) => describe_io(doing, error),
        async_imap::error::Error::No(_) | async_imap::error::Error::Bad(_) => {
            format!("the IMAP server refuses {doing}")
        }
        async_imap::error::Error::ConnectionLost => format!("the IMAP server closed the connection during {doing}"),
        _ => format!("the IMAP server's answer to {doing} cannot be read"),
    }
}

/// An error of kind `Other` holds the answer that could not be read, perhaps a mail.
fn describe_io(doing: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::Other => format!("the IMAP server's answer to {doing} cannot be read"),
        _ => format!("no connection to the IMAP server, {doing}: {error}"),
    }
}

/// As commands name them.
pub fn set(uids: &[u32]) -> String {
    let texts: Vec<String> = uids.iter().map(u32::to_string).collect();
    texts.join(",")
}

fn uids(answers: Vec<Answer>) -> Vec<u32> {
    let mut uids = Vec::new();
    for answer in answers {
        if let Answer::Found(found) = answer {
            uids.extend(found);
        }
    }
    uids.sort_unstable();
    uids.dedup();
    uids
}
