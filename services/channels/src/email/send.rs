//! Hands a mail to the SMTP server. A connection serves one mail, so that none is
//! found dead, and every step has its time-out: until the mail's last line nothing
//! has been taken, behind it nobody knows before the server has answered.

use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use model::error::chain;
use model::outbound::Outbound;
use secrecy::ExposeSecret;
use tokio::time::timeout;

use super::compose::{Composed, Composer};
use super::settings::{Smtp, Tls};
use crate::channel::Sent;

/// RFC 5321: so long a server may take for the mail itself, and all of it before.
pub const DEADLINE: Duration = Duration::from_secs(600);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// RFC 5321 asks for five minutes; less than `DEADLINE`, so that it is known that
/// nothing was taken.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
const MAIL_TIMEOUT: Duration = Duration::from_secs(300);
const GOOD_BYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Codes that say something of us and not of the mail: a wrong password must not
/// fail every answer for good.
const OURS: [u16; 6] = [421, 454, 530, 534, 535, 538];

/// Sends for one account.
pub struct Sender {
    settings: Smtp,
    tls: Option<TlsParameters>,
    hello: ClientId,
    composer: Composer,
}

impl Sender {
    /// `ca`: certificates in PEM that are trusted beside the system's.
    pub fn new(settings: Smtp, ca: Option<&str>, composer: Composer) -> Result<Self, String> {
        let tls = match settings.tls {
            Tls::None => None,
            Tls::Implicit | Tls::Upgraded => Some(tls(&settings.host, ca)?),
        };
        Ok(Self {
            hello: ClientId::Domain(composer.domain.clone()),
            settings,
            tls,
            composer,
        })
    }

    /// Connects and logs in, without sending anything.
    pub async fn try_out(&self) -> Result<String, String> {
        match within(COMMAND_TIMEOUT, self.connect()).await {
            Ok(mut connection) => {
                let _ = timeout(GOOD_BYE_TIMEOUT, connection.abort()).await;
                Ok("SMTP: the server takes mail from us".to_owned())
            }
            Err(Failure::Smtp(error)) => Err(describe(&error)),
            Err(Failure::TimedOut) => Err("the SMTP server does not answer".to_owned()),
        }
    }

    pub async fn send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        let composed = match self.composer.compose(outbound, files) {
            Ok(composed) => composed,
            Err(error) => return Sent::Refused { error },
        };
        let mut connection = match within(COMMAND_TIMEOUT, self.connect()).await {
            Ok(connection) => connection,
            Err(error) => return later(error),
        };
        let sent = self.transact(&mut connection, &composed).await;
        let _ = timeout(GOOD_BYE_TIMEOUT, connection.abort()).await;
        sent
    }

    async fn transact(&self, connection: &mut AsyncSmtpConnection, composed: &Composed) -> Sent {
        if needs_utf8(composed) && !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Sent::Refused {
                error: "the SMTP server cannot send to this address: it has no SMTPUTF8".to_owned(),
            };
        }
        if let Err(failure) = within(COMMAND_TIMEOUT, announce(connection, composed)).await {
            return failure.before_the_mail();
        }
        match within(MAIL_TIMEOUT, connection.message(&composed.bytes)).await {
            Ok(_) => Sent::Accepted {
                external_ids: vec![composed.message_id.clone()],
            },
            Err(failure) => failure.behind_the_mail(),
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let server = (self.settings.host.as_str(), self.settings.port());
        let at_once = self.tls.clone().filter(|_| self.settings.tls == Tls::Implicit);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_TIMEOUT), &self.hello, at_once, None).await?;
        if self.settings.tls == Tls::Upgraded
            && let Some(tls) = &self.tls
        {
            connection.starttls(tls.clone(), &self.hello).await?;
        }
        if let (Some(user), Some(password)) = (&self.settings.user, &self.settings.password) {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            connection
                .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
                .await?;
        }
        Ok(connection)
    }
}

/// Why a step failed.
enum Failure {
    Smtp(Error),
    TimedOut,
}

impl Failure {
    /// Nothing was taken: refused for good, or not now.
    fn before_the_mail(self) -> Sent {
        match self {
            Self::Smtp(error) if is_refusal(&error) => Sent::Refused {
                error: describe(&error),
            },
            other => later(other),
        }
    }

    fn behind_the_mail(self) -> Sent {
        match self {
            Self::Smtp(error) if is_refusal(&error) => Sent::Refused {
                error: describe(&error),
            },
            Self::Smtp(error) if error.status().is_some() => later(Self::Smtp(error)),
            Self::Smtp(error) => Sent::Unknown {
                error: describe(&error),
            },
            Self::TimedOut => Sent::Unknown {
                error: "the SMTP server did not confirm the mail in time".to_owned(),
            },
        }
    }
}

/// Sender, recipients, and the word that the mail comes.
async fn announce(connection: &mut AsyncSmtpConnection, composed: &Composed) -> Result<(), Error> {
    let parameters = needs_utf8(composed).then_some(MailParameter::SmtpUtfEight);
    let from = composed.envelope.from().cloned();
    connection
        .command(Mail::new(from, parameters.into_iter().collect()))
        .await?;
    for recipient in composed.envelope.to() {
        connection.command(Rcpt::new(recipient.clone(), Vec::new())).await?;
    }
    connection.command(Data).await?;
    Ok(())
}

/// RFC 6531.
fn needs_utf8(composed: &Composed) -> bool {
    let addresses = composed.envelope.from().into_iter().chain(composed.envelope.to());
    addresses
        .into_iter()
        .any(|address| !AsRef::<str>::as_ref(address).is_ascii())
}

async fn within<T>(longest: Duration, step: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match timeout(longest, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::Smtp(error)),
        Err(_) => Err(Failure::TimedOut),
    }
}

fn is_refusal(error: &Error) -> bool {
    error.is_permanent() && error.status().is_some_and(|code| !OURS.contains(&u16::from(code)))
}

fn later(failure: Failure) -> Sent {
    Sent::Later {
        after: None,
        error: match failure {
            Failure::Smtp(error) => describe(&error),
            Failure::TimedOut => "the SMTP server does not answer".to_owned(),
        },
    }
}

/// The chain of causes in one line.
fn describe(error: &Error) -> String {
    let text = format!("SMTP: {}", chain(error));
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(500)
        .collect()
}

fn tls(host: &str, ca: Option<&str>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(pem) = ca {
        let certificate = Certificate::from_pem(pem.as_bytes()).map_err(|error| format!("ca: {error}"))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(|error| format!("smtp: {error}"))
}

#[cfg(test)]
mod tests {
    use model::event::Recipient;
    use model::id::{ConversationId, MessageId};
    use model::time::Moment;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::signature::Keys;

    /// Serves one connection: answers each command by the first entry whose word
    /// it begins with; an empty answer hangs up. `.` stands for the mail's end.
    async fn serve(listener: TcpListener, answers: Vec<(&'static str, &'static str)>) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut is_in_mail = false;
        let mut word = "(greeting)".to_owned();
        loop {
            let answer = answers.iter().find(|(begin, _)| word.starts_with(begin));
            let answer = answer.map_or("250 fine", |(_, answer)| answer);
            if answer.is_empty() {
                return;
            }
            if !is_in_mail && stream.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
                return;
            }
            is_in_mail |= word.starts_with("DATA") && answer.starts_with("354");
            word = next(&mut stream).await;
            if is_in_mail && word == "." {
                is_in_mail = false;
            }
            if word.is_empty() && !is_in_mail {
                return;
            }
        }
    }

    async fn next(stream: &mut BufReader<TcpStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap_or(0);
        line.trim_end().to_owned()
    }

    async fn send(answers: &[(&'static str, &'static str)]) -> Sent {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Smtp {
            host: "127.0.0.1".to_owned(),
            port: Some(listener.local_addr().unwrap().port()),
            tls: Tls::None,
            insecure: false,
            user: Some("u".to_owned()),
            password: Some("hush".to_owned().into()),
        };
        let mut all = answers.to_vec();
        all.extend([
            ("(greeting)", "220 here"),
            ("EHLO", "250-here\r\n250 AUTH PLAIN"),
            ("AUTH", "235 welcome"),
            ("DATA", "354 go"),
        ]);
        let server = tokio::spawn(serve(listener, all));
        let composer = Composer {
            address: "support@example.org".to_owned(),
            display_name: None,
            domain: "example.org".to_owned(),
            plus_address: false,
            keys: Keys::new(vec![vec![1; 32]]).unwrap(),
        };
        let message_id = MessageId::authored("anna", "1");
        let outbound = Outbound {
            conversation_id: ConversationId::begun_by(&message_id),
            message_id,
            account: "support".to_owned(),
            thread: String::new(),
            recipients: vec![Recipient {
                role: "to".to_owned(),
                address: "anna@example.com".to_owned(),
                name: None,
            }],
            subject: None,
            text: "hello".to_owned(),
            html: None,
            attachments: Vec::new(),
            references: Vec::new(),
            quotes: None,
            template: None,
            automatic: false,
            created_at: Moment::from_ms(0),
        };
        let sent = Sender::new(settings, None, composer)
            .unwrap()
            .send(&outbound, &[])
            .await;
        server.await.unwrap();
        assert!(!format!("{sent:?}").contains("hush"), "{sent:?}");
        sent
    }

    #[tokio::test]
    async fn what_the_server_says_decides() {
        #[derive(Debug, PartialEq)]
        enum Outcome {
            Accepted,
            Refused,
            Later,
            Unknown,
        }
        use Outcome::*;
        let rows: [(&str, &str, Outcome); 17] = [
            ("none", "", Accepted),
            ("(greeting)", "421 too busy", Later),
            ("(greeting)", "", Later),
            ("EHLO", "", Later),
            ("AUTH", "535 5.7.8 wrong", Later),
            ("AUTH", "454 4.7.0 not now", Later),
            ("MAIL", "451 4.3.0 not now", Later),
            ("MAIL", "530 5.7.0 log in first", Later),
            ("MAIL", "552 5.3.4 too large", Refused),
            ("RCPT", "450 4.2.0 greylisted", Later),
            ("RCPT", "550 5.1.1 no such user", Refused),
            ("RCPT", "", Later),
            ("DATA", "554 5.7.1 no", Refused),
            ("DATA", "", Later),
            (".", "451 4.3.0 not now", Later),
            (".", "554 5.7.1 spam", Refused),
            (".", "", Unknown),
        ];
        for (word, answer, expected) in rows {
            let sent = send(&[(word, answer)]).await;
            let outcome = match &sent {
                Sent::Accepted { .. } => Accepted,
                Sent::Refused { .. } => Refused,
                Sent::Later { .. } => Later,
                Sent::Broken { .. } | Sent::Unknown { .. } => Unknown,
            };
            assert_eq!(outcome, expected, "{word} {answer}: {sent:?}");
        }
    }
}
