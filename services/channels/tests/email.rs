//! Mail against the real servers: Dovecot and Postfix, started by `deploy/dev`.
//! What happens here cannot be shown without them: UIDs that are given anew, mail
//! that disappears while it is read, refusals and bounces.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what failed by failing")]

use std::collections::{BTreeMap, HashSet};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use channels::channel::{Channel, Input, Sent, Unparsed};
use channels::inbox::Inbox;
use channels::list::{self, AccountSettings, Surroundings};
use channels::pull::Source;
use channels::signature::Keys;
use model::change::Changed;
use model::contact::Identity;
use model::context::{Changes, Replacing};
use model::conversation::{Conversation, Direction, StoredMessage};
use model::event::{Body, DeliveryState, Event, Message, RawContent, Recipient};
use model::id::{ContactId, ConversationId, MessageId};
use model::outbound::Outbound;
use model::time::Moment;
use prometheus_client::registry::Registry;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use store::Store;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(30);
const US: &str = "support@example.org";

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_read_completely() {
    let servers = Servers::start();
    let mut world = World::new(&servers, "since = 'now'").await;
    world.lay("old", &letter("old"));
    let reader = world.read().await;
    world.quiet().await;
    assert_eq!(world.subjects().await, [""; 0], "older mail is none of ours");

    // Its bytes and the moment of its arrival, soon, and the cursor behind it.
    let before = Instant::now();
    world.lay("first", &letter("first"));
    let event = world.arrival("first").await;
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    assert_eq!(event.raw.content, RawContent::Inline(letter("first")));
    assert!(
        event.raw.url.starts_with("imap:///INBOX;UIDVALIDITY="),
        "{}",
        event.raw.url
    );
    assert!(event.received_at.since_ms(Moment::from(SystemTime::now())).abs() < 60_000);

    // Read by somebody while nobody looked: a flag says nothing.
    world.stop(reader).await;
    world.lay_in("cur", "seen:2,S", &letter("seen"));
    world.lay("gone", &letter("gone"));
    world.lay("deleted:2,T", &letter("deleted"));
    std::fs::remove_file(world.folder().join("new/gone")).unwrap();
    let reader = world.read().await;
    world.arrival("seen").await;
    world.quiet().await;
    world.stop(reader).await;

    // Mail that disappears while others are read.
    for number in 0..40 {
        world.lay(&format!("m{number}"), &letter(&format!("m{number}")));
    }
    let reader = world.read().await;
    world.arrival("m3").await;
    let mut removed = HashSet::new();
    for number in (10..40).step_by(3) {
        let lain = ["new", "cur"].map(|folder| world.folder().join(folder));
        let files = lain.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        for file in files.map(|file| file.unwrap().path()) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            if name.split(':').next() == Some(&format!("m{number}")) && std::fs::remove_file(&file).is_ok() {
                removed.insert(number);
            }
        }
    }
    world.arrival("m38").await;
    world.quiet().await;
    let subjects = world.subjects().await;
    for number in (0..40).filter(|number| !removed.contains(number)) {
        let times = subjects
            .iter()
            .filter(|subject| **subject == format!("m{number}"))
            .count();
        assert_eq!(times, 1, "m{number}");
    }
    world.stop(reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uids_are_only_cursors() {
    let servers = Servers::start();
    let mut world = World::new(&servers, "since = 'now'").await;
    world.lay("before", &letter("before"));
    // INTERNALDATE has whole seconds, and this one is older.
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let file = std::fs::File::open(world.folder().join("new/before")).unwrap();
    file.set_modified(an_hour_ago).unwrap();
    let reader = world.read().await;
    world.quiet().await;
    world.lay("a", &letter("a"));
    world.lay("b", &letter("b"));
    world.lay("same", &letter("same"));
    world.arrival("same").await;
    world.quiet().await;
    world.stop(reader).await;
    world.store_all().await;

    // Another UIDVALIDITY, the same UIDs; one mail came in the meantime.
    world.lay("c", &letter("c"));
    servers.doveadm(&["mailbox", "update", "-u", US, "--uid-validity", "1900000000", "INBOX"]);
    let reader = world.read().await;
    world.arrival("c").await;
    world.quiet().await;
    assert_eq!(world.fetched().await, ["a", "b", "c", "same"], "only what is unknown");
    world.stop(reader).await;
    world.store_all().await;

    // Another UIDVALIDITY, and UIDs from 1.
    world.remove_indexes("dovecot");
    world.lay("d", &letter("d"));
    // The same headers as one that is known, other words.
    let mut other = letter("same");
    other.extend_from_slice(b"and more\r\n");
    world.lay("other", &other);
    // No Message-ID: always fetched, since its headers say too little.
    let nameless = b"Subject: nameless\r\nFrom: anna@example.com\r\n\r\nx\r\n";
    world.lay("nameless", nameless);
    let reader = world.read().await;
    world.arrival("d").await;
    world.arrival("nameless").await;
    world.quiet().await;
    let mut expected = vec!["a", "b", "c", "d", "nameless", "same", "same", "same"];
    assert_eq!(
        world.fetched().await,
        expected,
        "both of the same headers, one is a repeat"
    );
    assert_eq!(world.ids().await.len(), 7, "same is two mails");
    world.stop(reader).await;
    world.store_all().await;

    // The same UIDVALIDITY, every mail numbered anew, and as many as before.
    std::fs::remove_file(world.file("a")).unwrap();
    world.remove_indexes("dovecot-uidlist");
    world.lay("e", &letter("e"));
    let reader = world.read().await;
    world.arrival("e").await;
    world.quiet().await;
    expected.extend(["e", "nameless"]);
    expected.sort_unstable();
    assert_eq!(
        world.fetched().await,
        expected,
        "only what is unknown, and what has no Message-ID"
    );
    assert_eq!(world.ids().await.len(), 8);
    world.stop(reader).await;
    world.store_all().await;

    // Nothing of it is left; the numbers go on, and so does reading.
    for name in ["b", "c", "d", "e", "same", "other", "nameless", "before"] {
        std::fs::remove_file(world.file(name)).unwrap();
    }
    world.lay("f", &letter("f"));
    let reader = world.read().await;
    world.arrival("f").await;
    world.quiet().await;
    expected.push("f");
    expected.sort_unstable();
    assert_eq!(world.fetched().await, expected);
    world.stop(reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_begins_where_it_is_told() {
    let servers = Servers::start();
    for (since, expected) in [("all", vec!["new", "old"]), ("2026-06-01T00:00:00Z", vec!["new"])] {
        let mut world = World::new(&servers, &format!("since = '{since}'")).await;
        world.empty();
        for (name, at) in [("old", "2026-01-01T00:00:00Z"), ("new", "2026-07-01T00:00:00Z")] {
            world.lay(name, &letter(name));
            let at = Duration::from_millis(Moment::parse(at).unwrap().as_ms() as u64);
            let file = std::fs::File::open(world.folder().join("new").join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + at).unwrap();
        }
        let reader = world.read().await;
        let event = world.arrival("new").await;
        assert_eq!(event.received_at, Moment::parse("2026-07-01T00:00:00Z").unwrap());
        world.quiet().await;
        assert_eq!(world.fetched().await, expected, "{since}");
        // What comes later is read whatever its date says.
        world.lay("late", &letter("late"));
        world.arrival("late").await;
        world.stop(reader).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_mail_costs_no_other() {
    let servers = Servers::start();
    let mut world = World::new(&servers, "since = 'all'").await;
    world.empty();
    world.lay("1", &letter("1"));
    world.lay("2", b"\x00\x01\x02 no mail at all");
    let large = [letter("large"), b"x".repeat(26 * 1024 * 1024)].concat();
    world.lay("3", &large);
    world.lay("4", b"");
    world.lay("5", &letter("5"));
    let reader = world.read().await;
    world.arrival("5").await;
    world.quiet().await;
    let events = world.events().await;
    let parked: Vec<(String, usize)> = events
        .iter()
        .filter_map(|event| match (&event.body, &event.raw.content) {
            (Body::Parked { reason }, RawContent::Inline(bytes)) => Some((reason.clone(), bytes.len())),
            _ => None,
        })
        .collect();
    assert_eq!(parked.len(), 3, "{parked:?}");
    assert!(parked[0].0.contains("no header") && parked[0].1 > 0, "{parked:?}");
    assert!(parked[1].0.contains("25 MiB") && parked[1].1 == 64 * 1024, "{parked:?}");
    // A replay does not take the beginning for the mail.
    let large = events.iter().find(|event| event.raw.url.ends_with("/;UID=3")).unwrap();
    let RawContent::Inline(beginning) = large.raw.content.clone() else {
        panic!("{large:?}");
    };
    let input = Input::kept(&large.raw, beginning.into(), large.received_at);
    let Err(Unparsed::Parked { reason }) = world.channel.parse(&input) else {
        panic!("a half mail was read");
    };
    assert!(
        reason.contains("only the beginning") && reason.contains("fetch it from the mailbox (imap:///INBOX;"),
        "{reason}"
    );
    world.stop(reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_sent_and_their_failures_known() {
    let servers = Servers::start_both();
    let mut world = World::new(&servers, "plus_address = true").await;
    let reader = world.read().await;
    world.quiet().await;

    // It arrives, and is taken for our own where it comes back.
    let sent = world.send(&servers, "anna@example.com").await;
    let Sent::Accepted { external_ids } = &sent else {
        panic!("{sent:?}");
    };
    let mail = eventually("the answer", async || servers.mails("anna@example.com").pop()).await;
    let text = String::from_utf8(mail).unwrap();
    assert!(text.contains(&format!("Message-ID: {}", external_ids[0])), "{text}");
    assert!(text.contains("Reply-To:") && text.contains("support+"), "{text}");
    assert!(matches!(world.send(&servers, US).await, Sent::Accepted { .. }));
    let own = eventually("our own mail", async || {
        let mut events = world.events().await.into_iter();
        events.find(|event| matches!(&event.body, Body::MessageReceived(message) if message.automatic.is_some()))
    });
    let Body::MessageReceived(message) = own.await.body else {
        panic!("no message");
    };
    assert_eq!(message.automatic, Some(model::event::Automatic::Own));

    // Refused at the door, bounced behind it.
    let refused = world.send(&servers, "nobody@example.com").await;
    assert!(
        matches!(&refused, Sent::Refused { error } if error.contains("550")),
        "{refused:?}"
    );
    assert!(matches!(
        world.send(&servers, "gone@example.com").await,
        Sent::Accepted { .. }
    ));
    let report = eventually("the bounce", async || {
        let events = world.events().await;
        events.into_iter().find_map(|event| match event.body {
            Body::DeliveryReported(report) => Some(report),
            _ => None,
        })
    });
    let report = report.await;
    assert_eq!(report.state, DeliveryState::Failed);
    assert_eq!(report.external_id, outbound("gone@example.com").message_id.as_str());
    assert!(report.error.unwrap().contains("5.1.1"));

    // Nobody there: not now.
    let nowhere = Servers::settings(US, servers.imap_port, free_port(), "");
    let later = build(&nowhere).send(&outbound("anna@example.com"), &[]).await;
    assert!(matches!(later, Sent::Later { .. }), "{later:?}");
    world.stop(reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_secure_or_none() {
    let servers = Servers::start_both();
    let authority = Authority::new();
    for way in [Way::Implicit, Way::StartTls] {
        let imap_port = authority.front(way, servers.imap_port, Talk::Imap).await;
        let smtp_port = authority.front(way, servers.smtp_port, Talk::Smtp).await;
        let settings = |host: &str, ca: &str| {
            let tls = if way == Way::Implicit { "implicit" } else { "starttls" };
            format!(
                "address = '{US}'
                 imap = {{ host = '{host}', port = {imap_port}, tls = '{tls}', user = '{US}', password = 'secret' }}
                 smtp = {{ host = '{host}', port = {smtp_port}, tls = '{tls}' }}
                 ca = \"\"\"{ca}\"\"\""
            )
        };
        let mut world = World::with(&servers, &settings("localhost", &authority.certificate())).await;
        let reader = world.read().await;
        world.quiet().await;
        let name = format!("{way:?}");
        world.lay(&name, &letter(&name));
        world.arrival(&name).await;
        let sent = world.send(&servers, "anna@example.com").await;
        assert!(matches!(sent, Sent::Accepted { .. }), "{way:?}: {sent:?}");
        world.stop(reader).await;

        // Another's certificate, or another's name: nothing is said over it.
        let stranger = Authority::new().certificate();
        for settings in [
            settings("localhost", &stranger),
            settings("127.0.0.1", &authority.certificate()),
        ] {
            let world = World::with(&servers, &settings).await;
            let error = world.pull_error().await;
            assert!(
                error.contains("TLS") || error.contains("certificate"),
                "{way:?}: {error}"
            );
            let sent = world.send(&servers, "anna@example.com").await;
            assert!(matches!(sent, Sent::Later { .. }), "{way:?}: {sent:?}");
        }
    }
    // Who asks for TLS does not go on without it.
    let settings = Servers::settings(US, servers.imap_port, servers.smtp_port, "");
    let world = World::with(&servers, &settings.replace("'none'", "'starttls'")).await;
    assert!(world.pull_error().await.contains("STARTTLS"));
    let sent = world.send(&servers, "anna@example.com").await;
    assert!(
        matches!(&sent, Sent::Later { error, .. } if error.contains("STARTTLS")),
        "{sent:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_idle_it_looks_now_and_then() {
    let servers = Servers::start();
    let settings = Servers::settings(US, servers.imap_port, servers.smtp_port, "");
    let polling = settings.replace("password =", "idle = false, poll_seconds = 1, password =");
    let mut world = World::with(&servers, &polling).await;
    let reader = world.read().await;
    world.quiet().await;
    for name in ["a", "b"] {
        world.lay(name, &letter(name));
        world.arrival(name).await;
    }
    world.stop(reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_not_repeated() {
    let servers = Servers::start();
    let settings = Servers::settings(US, servers.imap_port, servers.smtp_port, "");
    let world = World::with(&servers, &settings.replace("'secret'", "'hush'")).await;
    let error = world.pull_error().await;
    assert!(
        error.contains("refuses imap.user and imap.password") && !error.contains("hush"),
        "{error}"
    );
    let missing = settings.replace("password = 'secret'", "password = 'secret', mailbox = 'Nowhere'");
    let error = World::with(&servers, &missing).await.pull_error().await;
    assert!(error.contains("refuses EXAMINE"), "{error}");
}

fn letter(subject: &str) -> Vec<u8> {
    format!(
        "Message-ID: <{subject}@example.com>\r\nDate: Sat, 31 Jan 2026 10:00:00 +0000\r\n\
         From: anna@example.com\r\nTo: {US}\r\nSubject: {subject}\r\n\r\nhello\r\n"
    )
    .into_bytes()
}

fn outbound(to: &str) -> Outbound {
    let message_id = MessageId::authored("emma", to);
    Outbound {
        conversation_id: ConversationId::begun_by(&message_id),
        message_id,
        account: "support".to_owned(),
        thread: String::new(),
        recipients: vec![Recipient {
            role: "to".to_owned(),
            address: to.to_owned(),
            name: None,
        }],
        subject: Some("Über Nacht".to_owned()),
        text: "Guten Tag\n".to_owned(),
        html: None,
        attachments: Vec::new(),
        references: Vec::new(),
        quotes: None,
        template: None,
        automatic: false,
        created_at: Moment::from(SystemTime::now()),
    }
}

/// Waits for a condition.
async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn build(settings: &str) -> Arc<dyn Channel> {
    let account = AccountSettings {
        name: "support".to_owned(),
        channel: "email".to_owned(),
        queue: None,
        join: None,
        rest: settings.parse().unwrap(),
    };
    let surroundings = Surroundings {
        keys: Keys::new(vec![vec![7; 32]]).unwrap(),
        public_url: "http://127.0.0.1:1".to_owned(),
        http: channels::guard::Guard::new(false).unwrap(),
        calendars: Vec::new(),
    };
    list::build(&[account], &surroundings)
        .unwrap()
        .remove("support")
        .unwrap()
        .channel
}

/// Dovecot and Postfix of one test.
struct Servers {
    folder: tempfile::TempDir,
    imap_port: u16,
    smtp_port: u16,
    lmtp_port: u16,
}

impl Servers {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let servers = Self {
            folder,
            imap_port: free_port(),
            smtp_port: free_port(),
            lmtp_port: free_port(),
        };
        servers.run("dovecot", "start", &[servers.imap_port, servers.lmtp_port]);
        servers
    }

    /// Postfix too: only where mail is sent, since it takes two seconds.
    fn start_both() -> Self {
        let servers = Self::start();
        servers.run("postfix", "start", &[servers.smtp_port, servers.lmtp_port]);
        servers
    }

    fn run(&self, server: &str, verb: &str, ports: &[u16]) {
        let mut command = Command::new(Self::scripts().join(format!("{server}.sh")));
        command.arg(verb).arg(self.folder.path().join(server));
        command.args(ports.iter().map(u16::to_string));
        let output = command.arg(Self::scripts().join("boxes")).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{server} {verb}: {words}");
    }

    fn scripts() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/dev")
    }

    fn doveadm(&self, arguments: &[&str]) {
        let configuration = self.folder.path().join("dovecot/dovecot.conf");
        let output = Command::new("doveadm")
            .arg("-c")
            .arg(configuration)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn folder_of(&self, address: &str) -> PathBuf {
        let (name, domain) = address.split_once('@').unwrap();
        self.folder.path().join("dovecot/mail").join(domain).join(name)
    }

    fn mails(&self, address: &str) -> Vec<Vec<u8>> {
        let Ok(files) = std::fs::read_dir(self.folder_of(address).join("new")) else {
            return Vec::new();
        };
        files
            .filter_map(|file| std::fs::read(file.unwrap().path()).ok())
            .collect()
    }

    fn settings(address: &str, imap_port: u16, smtp_port: u16, more: &str) -> String {
        format!(
            "address = '{address}'
             imap = {{ host = '127.0.0.1', port = {imap_port}, tls = 'none', user = '{address}', password = 'secret' }}
             smtp = {{ host = '127.0.0.1', port = {smtp_port}, tls = 'none' }}
             trusted_authserv_ids = ['mail.test']
             {more}"
        )
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.run("postfix", "stop", &[]);
        self.run("dovecot", "stop", &[]);
    }
}

/// A certificate authority and a server's certificate for `localhost`.
struct Authority {
    folder: tempfile::TempDir,
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Implicit,
    StartTls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    Imap,
    Smtp,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "
            key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
            openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj '/CN=Test CA' \
              -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
            openssl req $key -keyout server.key -out server.csr -subj /CN=localhost
            printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' >ext
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.pem";
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { folder }
    }

    fn certificate(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("ca.pem")).unwrap()
    }

    /// Puts TLS before a plain server; gives the port.
    async fn front(&self, way: Way, port: u16, talk: Talk) -> u16 {
        let certificate = CertificateDer::from_pem_file(self.folder.path().join("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.folder.path().join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                // A client that turns away ends this one connection.
                tokio::spawn(async move { relay(client, way, talk, port, acceptor).await.ok() });
            }
        });
        own
    }
}

async fn relay(mut client: TcpStream, way: Way, talk: Talk, port: u16, acceptor: TlsAcceptor) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut server = BufReader::new(server);
    if way == Way::StartTls {
        let mut greeting = String::new();
        server.read_line(&mut greeting).await?;
        let mut client = BufReader::new(&mut client);
        client.write_all(greeting.as_bytes()).await?;
        loop {
            let mut line = String::new();
            if client.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let answer = match (talk, line.contains("STARTTLS")) {
                (Talk::Smtp, true) => "220 go\r\n".to_owned(),
                (Talk::Smtp, false) => "250-front\r\n250 STARTTLS\r\n".to_owned(),
                (Talk::Imap, true) => format!("{} OK go\r\n", line.split(' ').next().unwrap()),
                (Talk::Imap, false) => format!("{} BAD not before TLS\r\n", line.split(' ').next().unwrap()),
            };
            client.write_all(answer.as_bytes()).await?;
            if line.contains("STARTTLS") {
                break;
            }
        }
    }
    let mut client = acceptor.accept(client).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// An account with a store and a log of its own.
struct World {
    /// Held for its files.
    _data: tempfile::TempDir,
    mailbox: PathBuf,
    channel: Arc<dyn Channel>,
    store: Store,
    bus: bus::Bus,
    inbox: Inbox,
    reader: bus::Reader,
    read: Vec<Event>,
}

struct Reading {
    stop: CancellationToken,
    task: JoinHandle<Source>,
}

impl World {
    async fn new(servers: &Servers, more: &str) -> Self {
        let settings = Servers::settings(US, servers.imap_port, servers.smtp_port, more);
        Self::with(servers, &settings).await
    }

    async fn with(servers: &Servers, account: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}", data.path().join("desk.db").display()))
            .await
            .unwrap();
        store.migrate().await.unwrap();
        let settings = bus::Settings {
            url: format!("local:{}", data.path().join("log.db").display()),
            spool: None,
            blobs_url: format!("file:{}", data.path().join("blobs").display()),
            partitions: 1,
            kafka: bus::KafkaSettings::default(),
        };
        let bus = bus::Bus::open(&settings, &mut Registry::default()).await.unwrap();
        let world = Self {
            mailbox: servers.folder_of(US),
            channel: build(account),
            store,
            inbox: Inbox::new(bus.clone(), &mut Registry::default()),
            reader: bus.reader(bus::EVENTS, "test").await.unwrap(),
            bus,
            read: Vec::new(),
            _data: data,
        };
        let plan = model::context::AccountPlan {
            name: "support".to_owned(),
            channel: "email".to_owned(),
            queue: None,
            join: world.channel.declaration().join,
            live: false,
        };
        world
            .store
            .declare_accounts(&[(plan, world.channel.declaration())])
            .await
            .unwrap();
        world
    }

    /// Begins to read the mailbox under a lease.
    async fn read(&self) -> Reading {
        let source = self.source().await;
        let stop = source.stop.clone();
        let channel = Arc::clone(&self.channel);
        let task = tokio::spawn(async move {
            while !source.stop.is_cancelled() {
                if let Err(error) = channel.pull(&source).await {
                    eprintln!("pull: {error:?}");
                }
            }
            source
        });
        Reading { stop, task }
    }

    /// Why reading does not even begin.
    async fn pull_error(&self) -> String {
        let source = self.source().await;
        let error = self.channel.pull(&source).await.unwrap_err().reason;
        self.store.release_lease(&source.lease).await.unwrap();
        error
    }

    async fn source(&self) -> Source {
        Source {
            account: "support".to_owned(),
            channel: "email".to_owned(),
            inbox: self.inbox.clone(),
            store: self.store.clone(),
            lease: self
                .store
                .hold_lease("pull:support", "test", Duration::from_secs(30))
                .await,
            stop: CancellationToken::new(),
        }
    }

    async fn stop(&self, reading: Reading) {
        reading.stop.cancel();
        let source = reading.task.await.unwrap();
        self.store.release_lease(&source.lease).await.unwrap();
    }

    /// Until nothing waits, twice, and the account was seen in between.
    async fn quiet(&self) {
        for _ in 0..2 {
            let since = Moment::from(SystemTime::now()).plus_ms(-1);
            eventually("quiet", async || {
                let account = self.store.accounts().await.unwrap().remove(0);
                let cursor = self.store.cursor("support").await.unwrap();
                let is_seen = account.last_seen_at.is_some();
                (is_seen && cursor.is_some() && account.waiting == 0 && self.bus.pending().await.spooled_events == 0)
                    .then_some(())
            })
            .await;
            // IDLE has begun once a second look finds the same.
            while Moment::from(SystemTime::now()).since_ms(since) < 300 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// All events so far.
    async fn events(&mut self) -> Vec<Event> {
        let end: i64 = self
            .bus
            .end_offsets(bus::EVENTS)
            .await
            .unwrap()
            .iter()
            .map(|(_, end)| end)
            .sum();
        while (self.read.len() as i64) < end {
            let batch = self.reader.next(1000).await.unwrap();
            for record in batch.records {
                self.read.push(record.event.unwrap());
            }
        }
        self.read.clone()
    }

    async fn arrival(&mut self, subject: &str) -> Event {
        eventually(subject, async || {
            let events = self.events().await;
            events
                .into_iter()
                .find(|event| message_of(event).is_some_and(|message| message.subject.as_deref() == Some(subject)))
        })
        .await
    }

    /// Subjects of all messages, repeats included, as they were read.
    async fn subjects(&mut self) -> Vec<String> {
        let events = self.events().await;
        let messages = events.iter().filter_map(message_of);
        messages.filter_map(|message| message.subject.clone()).collect()
    }

    async fn fetched(&mut self) -> Vec<String> {
        let mut subjects = self.subjects().await;
        subjects.sort_unstable();
        subjects
    }

    async fn ids(&mut self) -> HashSet<String> {
        self.events().await.into_iter().map(|event| event.id).collect()
    }

    /// Stores all messages, as routing would.
    async fn store_all(&mut self) {
        let events: BTreeMap<String, Event> = self
            .events()
            .await
            .into_iter()
            .map(|event| (event.id.clone(), event))
            .collect();
        for event in events.into_values() {
            let id = event.message_id().unwrap();
            if !self
                .store
                .known_external_ids(&[format!("test:{id}")])
                .await
                .unwrap()
                .is_empty()
            {
                continue;
            }
            self.store.commit(&stored(event)).await.unwrap();
        }
    }

    async fn send(&self, _servers: &Servers, to: &str) -> Sent {
        self.channel.send(&outbound(to), &[]).await
    }

    fn folder(&self) -> PathBuf {
        self.mailbox.clone()
    }

    fn file(&self, name: &str) -> PathBuf {
        let folders = ["new", "cur"].map(|folder| self.mailbox.join(folder));
        let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let mut files = files.map(|file| file.unwrap().path());
        files
            .find(|file| file.file_name().unwrap().to_string_lossy().split(':').next() == Some(name))
            .unwrap()
    }

    fn lay(&self, name: &str, bytes: &[u8]) {
        self.lay_in("new", name, bytes);
    }

    /// Lays a mail into the Maildir, as a delivery does.
    fn lay_in(&self, folder: &str, name: &str, bytes: &[u8]) {
        let owner = std::fs::metadata(self.mailbox.ancestors().nth(2).unwrap()).unwrap();
        let own = |path: &Path| chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        for part in ["new", "cur", "tmp"] {
            let path = self.mailbox.join(part);
            if !path.exists() {
                std::fs::create_dir_all(&path).unwrap();
                own(&path);
                own(&self.mailbox);
                own(self.mailbox.parent().unwrap());
            }
        }
        let temporary = self.mailbox.join("tmp").join(name);
        std::fs::write(&temporary, bytes).unwrap();
        own(&temporary);
        std::fs::rename(&temporary, self.mailbox.join(folder).join(name)).unwrap();
    }

    /// A mailbox without mail and history.
    fn empty(&self) {
        let _ = std::fs::remove_dir_all(&self.mailbox);
    }

    fn remove_indexes(&self, beginning: &str) {
        for file in std::fs::read_dir(&self.mailbox).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with(beginning) {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

fn message_of(event: &Event) -> Option<&Message> {
    match &event.body {
        Body::MessageReceived(message) => Some(message),
        _ => None,
    }
}

fn stored(event: Event) -> Changes {
    let id = event.message_id().unwrap();
    let Body::MessageReceived(mut message) = event.body else {
        panic!("no message");
    };
    message.external_ids.push(format!("test:{id}"));
    let conversation = ConversationId::begun_by(&id);
    let contact = ContactId::met_by(&id);
    let identity: Identity = message.sender.identity();
    let row = Conversation {
        id: conversation.clone(),
        account: event.account.clone(),
        channel: event.channel,
        contact_id: contact.clone(),
        subject: None,
        thread: event.thread_key,
        thread_name: None,
        ticket_id: None,
        participants: [identity].into(),
        suggested: None,
        consent: None,
        epoch: 1,
        last_sequence: 1,
        last_message_at: event.received_at,
        created_at: event.received_at,
        version: 1,
    };
    let message = StoredMessage {
        id,
        conversation_id: conversation.clone(),
        account: event.account,
        direction: Direction::Inbound,
        author: contact.to_string(),
        message: *message,
        occurred_at: event.occurred_at,
        received_at: event.received_at,
        provider_sequence: None,
        changed: Changed::default(),
        sequence: Some(1),
        delivery: None,
        delivery_error: None,
        raw: Some(event.raw),
        request_sha256: None,
    };
    Changes {
        conversations: [(
            conversation,
            Replacing {
                expected_version: 0,
                row,
            },
        )]
        .into(),
        messages: vec![message],
        ..Changes::default()
    }
}
