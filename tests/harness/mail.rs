//! People with mailboxes: mail goes in by SMTP as composed, byte for byte, and is
//! read from the folders of Dovecot, or by IMAP where the way matters.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt as _;
use lettre::address::Envelope;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use mailparse::MailHeaderMap as _;
use tokio::net::TcpStream;

use super::desk::SOON;
use super::servers::Mail;
use super::wait::eventually;

/// A mail to be written. Every story gives its own `id`, so runs are the same.
#[derive(Clone, Debug, Default)]
pub struct Letter {
    pub from: String,
    pub to: String,
    pub subject: String,
    pub text: String,
    /// Local part and domain of the Message-ID.
    pub id: String,
    /// A Message-ID with its angle brackets.
    pub in_reply_to: Option<String>,
    /// More header lines, each without its end.
    pub more: Vec<String>,
}

impl Letter {
    /// A plain mail.
    pub fn new(from: &str, to: &str, id: &str, subject: &str, text: &str) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            subject: subject.to_owned(),
            text: text.to_owned(),
            id: id.to_owned(),
            ..Self::default()
        }
    }

    /// An answer to that mail.
    pub fn answering(mut self, message_id: &str) -> Self {
        self.in_reply_to = Some(message_id.to_owned());
        self
    }

    /// One more header line.
    pub fn with(mut self, header: &str) -> Self {
        self.more.push(header.to_owned());
        self
    }

    /// Deeper than any mail that a person sends, so that no parser need follow it.
    pub fn unparsable(self) -> Self {
        let mut text = String::new();
        let depth = 1_000;
        for level in 0..depth {
            text.push_str(&format!(
                "--b{level}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n",
                level + 1
            ));
        }
        text.push_str(&format!("--b{depth}\r\n\r\nAt last.\r\n--b{depth}--\r\n"));
        let mut letter = self
            .with("MIME-Version: 1.0")
            .with("Content-Type: multipart/mixed; boundary=b0");
        letter.text = text;
        letter
    }

    /// As it goes over the wire, from the first header on.
    pub fn bytes(&self) -> Vec<u8> {
        let date = jiff::Zoned::now().strftime("%a, %d %b %Y %H:%M:%S %z");
        let mut text = format!(
            "Message-ID: <{}>\r\nDate: {date}\r\nFrom: A Person <{}>\r\nTo: {}\r\nSubject: {}\r\n",
            self.id, self.from, self.to, self.subject
        );
        if let Some(parent) = &self.in_reply_to {
            text.push_str(&format!("In-Reply-To: {parent}\r\nReferences: {parent}\r\n"));
        }
        for header in &self.more {
            text.push_str(&format!("{header}\r\n"));
        }
        if !self
            .more
            .iter()
            .any(|header| header.to_ascii_lowercase().starts_with("content-type"))
        {
            text.push_str("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n");
        }
        text.push_str(&format!("\r\n{}\r\n", self.text));
        text.into_bytes()
    }
}

impl Mail {
    /// Sends a letter and gives its bytes.
    pub async fn send(&self, letter: &Letter) -> Result<Vec<u8>> {
        let bytes = letter.bytes();
        self.send_bytes(&letter.from, &letter.to, &bytes).await?;
        Ok(bytes)
    }

    /// Hands these bytes to the server; an empty `from` is the null sender.
    pub async fn send_bytes(&self, from: &str, to: &str, bytes: &[u8]) -> Result<()> {
        let smtp = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
            .port(self.smtp_port)
            .build();
        let from = match from {
            "" => None,
            from => Some(from.parse()?),
        };
        let to: Vec<lettre::Address> = to.split(", ").map(str::parse).collect::<Result<_, _>>()?;
        // lettre ends what it sends with a line end of its own.
        let bytes = bytes.strip_suffix(b"\r\n").unwrap_or(bytes);
        let sending = smtp.send_raw(&Envelope::new(from, to)?, bytes).await;
        sending.context("cannot hand a mail to Postfix")?;
        Ok(())
    }

    /// Lays bytes into a mailbox that no mail server would carry.
    pub fn lay(&self, address: &str, name: &str, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let mailbox = self.mailbox(address)?;
        let owner = std::fs::metadata(&self.folder)?;
        let mut folder = self.folder.clone();
        for part in mailbox.join("new").strip_prefix(&self.folder)? {
            folder.push(part);
            if !folder.exists() {
                std::fs::create_dir(&folder)?;
                chown(&folder, Some(owner.uid()), Some(owner.gid()))?;
            }
        }
        let temporary = mailbox.join(name);
        std::fs::write(&temporary, bytes)?;
        chown(&temporary, Some(owner.uid()), Some(owner.gid()))?;
        std::fs::rename(&temporary, folder.join(name))?;
        Ok(())
    }

    /// All mails of a mailbox as they lie there, in no order.
    pub fn mails(&self, address: &str) -> Result<Vec<Vec<u8>>> {
        let mailbox = self.mailbox(address)?;
        let mut mails = Vec::new();
        for folder in ["new", "cur"] {
            let Ok(files) = std::fs::read_dir(mailbox.join(folder)) else {
                continue;
            };
            for file in files {
                // One that is just being moved from new to cur is met again.
                if let Ok(bytes) = std::fs::read(file?.path()) {
                    mails.push(bytes);
                }
            }
        }
        Ok(mails)
    }

    /// Waits for a mail in which `is_it` holds.
    pub async fn arrival(&self, address: &str, what: &str, is_it: impl Fn(&Received) -> bool) -> Result<Received> {
        let what = format!("{what} in the mailbox of {address}");
        eventually(&what, SOON, async || {
            for bytes in self.mails(address)? {
                let mail = Received::new(bytes)?;
                if is_it(&mail) {
                    return Ok(Some(mail));
                }
            }
            Ok(None)
        })
        .await
    }

    /// `BODY[]` of every mail in the INBOX, by IMAP.
    pub async fn imap_bodies(&self, address: &str) -> Result<Vec<Vec<u8>>> {
        tokio::time::timeout(Duration::from_secs(60), self.fetch(address)).await?
    }

    /// Marks all that is in the INBOX as seen, as another client of the mailbox does.
    pub async fn mark_seen(&self, address: &str) -> Result<()> {
        let marking = async {
            let mut session = self.session(address).await?;
            session.select("INBOX").await?;
            let stored: Vec<_> = session.uid_store("1:*", "+FLAGS (\\Seen)").await?.try_collect().await?;
            drop(stored);
            session.logout().await?;
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(20), marking).await?
    }

    /// Moves the mail of this UID from the INBOX to another folder, which is made for it.
    pub async fn move_away(&self, address: &str, uid: u32, folder: &str) -> Result<()> {
        self.move_all(address, ["INBOX", folder], &uid.to_string()).await
    }

    /// Moves all that lies in a folder back to the INBOX.
    pub async fn move_back(&self, address: &str, folder: &str) -> Result<()> {
        self.move_all(address, [folder, "INBOX"], "1:*").await
    }

    async fn move_all(&self, address: &str, [from, to]: [&str; 2], uids: &str) -> Result<()> {
        let moving = async {
            let mut session = self.session(address).await?;
            // It may be there already.
            let _ = session.create(to).await;
            session.select(from).await?;
            session.uid_mv(uids, to).await?;
            session.logout().await?;
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(20), moving).await?
    }

    async fn session(&self, address: &str) -> Result<async_imap::Session<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.imap_port)).await?;
        let mut client = async_imap::Client::new(stream);
        client.read_response().await?.context("no greeting")?;
        Ok(client.login(address, "secret").await.map_err(|(error, _)| error)?)
    }

    async fn fetch(&self, address: &str) -> Result<Vec<Vec<u8>>> {
        let mut session = self.session(address).await?;
        session.examine("INBOX").await?;
        let fetched: Vec<_> = session.uid_fetch("1:*", "BODY.PEEK[]").await?.try_collect().await?;
        let bodies = fetched
            .iter()
            .map(|mail| mail.body().map(<[u8]>::to_vec).context("no BODY[]"))
            .collect();
        session.logout().await?;
        bodies
    }

    fn mailbox(&self, address: &str) -> Result<std::path::PathBuf> {
        let (name, domain) = address.split_once('@').context("not an address")?;
        ensure!(!name.contains('/') && !domain.contains('/'), "not an address");
        Ok(self.folder.join(Path::new(domain)).join(name))
    }
}

/// A mail that came.
#[derive(Clone, Debug)]
pub struct Received {
    pub bytes: Vec<u8>,
    headers: Vec<(String, String)>,
    /// The text of its first plain part.
    pub text: String,
}

impl Received {
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        let parsed = mailparse::parse_mail(&bytes)?;
        let headers = parsed
            .headers
            .iter()
            .map(|header| (header.get_key(), header.get_value()))
            .collect();
        let text = plain_text(&parsed)?.unwrap_or_default();
        Ok(Self { headers, text, bytes })
    }

    /// The first header of this name, unfolded and decoded.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The header, which must be there.
    pub fn required(&self, name: &str) -> Result<&str> {
        self.header(name).with_context(|| format!("the mail has no {name}"))
    }
}

fn plain_text(part: &mailparse::ParsedMail<'_>) -> Result<Option<String>> {
    if part.subparts.is_empty() {
        let is_attached = part
            .headers
            .get_first_value("Content-Disposition")
            .is_some_and(|value| value.starts_with("attachment"));
        let is_plain = part.ctype.mimetype == "text/plain" && !is_attached;
        return Ok(is_plain.then(|| part.get_body()).transpose()?);
    }
    for part in &part.subparts {
        if let Some(text) = plain_text(part)? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}
