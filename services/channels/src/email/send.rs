//! Hands a mail to the SMTP server. A connection serves one mail, so that none is
//! found dead, and every step has its time-out: until the mail's last line nothing
//! has been taken, behind it nobody knows before the server has answered.

use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
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
    let mut text = format!("SMTP: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
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
