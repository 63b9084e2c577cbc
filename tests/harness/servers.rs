//! Kafka, PostgreSQL, object storage, Dovecot and Postfix, started by the scripts of
//! `deploy/dev` on free ports when first asked for, and stopped by a guard
//! process even if this one is killed.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::PoisonError;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OnceCell};

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// As many free ports of the loopback; none is given twice, though it may not be
/// in use yet.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static GIVEN: std::sync::Mutex<BTreeSet<u16>> = std::sync::Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Held until all are found, so that they differ.
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        *port = loop {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let found = listener.local_addr()?.port();
            listeners.push(listener);
            if given.insert(found) {
                break found;
            }
        };
    }
    Ok(ports)
}

/// All servers of one run, in one folder.
pub struct Servers {
    pub dir: PathBuf,
    boxes: String,
    brokers: usize,
    /// Stops everything below `dir` when its standard input closes.
    guard: Mutex<Child>,
    mail: OnceCell<Mail>,
    kafka: OnceCell<Kafka>,
    postgres: OnceCell<Postgres>,
    storage: OnceCell<Storage>,
}

/// Dovecot and Postfix.
#[derive(Clone, Debug)]
pub struct Mail {
    pub imap_port: u16,
    pub smtp_port: u16,
    /// `<domain>/<name>/{new,cur}`.
    pub folder: PathBuf,
    dovecot: PathBuf,
    postfix: PathBuf,
    lmtp_port: u16,
    boxes: PathBuf,
}

/// One broker or three.
#[derive(Clone, Debug)]
pub struct Kafka {
    pub brokers: Vec<Broker>,
    /// Of the first of them.
    pub port: u16,
}

/// One node, broker and controller.
#[derive(Clone, Debug)]
pub struct Broker {
    dir: PathBuf,
    pub port: u16,
    /// For a proxy: where the broker listens too, and where it says that it is.
    pub behind_port: u16,
    pub proxy_port: u16,
    id: usize,
    controller_port: u16,
    /// Of all nodes, in their order.
    controllers: String,
}

/// One server with the database `tributary`.
#[derive(Clone, Debug)]
pub struct Postgres {
    dir: PathBuf,
    pub port: u16,
}

/// Object storage with the bucket [`BUCKET`].
#[derive(Clone, Debug)]
pub struct Storage {
    pub port: u16,
    /// Where its objects lie, as files.
    pub folder: PathBuf,
}

/// The bucket that is there from the start.
pub const BUCKET: &str = "tributary";

impl Storage {
    /// What a client of it that comes by this port finds in its environment.
    pub fn environment(port: u16) -> Vec<(String, String)> {
        let told = [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "tributary".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "tributary-secret".to_owned()),
        ];
        told.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

impl Servers {
    /// A folder and its guard; `boxes` is the text of a mailbox list, see
    /// `deploy/dev/boxes`, and Kafka has so many `brokers`.
    pub fn new(boxes: String, brokers: usize) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("tributary-tests-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        // PostgreSQL and Dovecot are other users.
        set_mode(&dir, 0o755)?;
        let guard = Command::new(repository().join("deploy/dev/guard.sh"))
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start deploy/dev/guard.sh")?;
        Ok(Self {
            dir,
            boxes,
            brokers,
            guard: Mutex::new(guard),
            mail: OnceCell::new(),
            kafka: OnceCell::new(),
            postgres: OnceCell::new(),
            storage: OnceCell::new(),
        })
    }

    /// The mail servers, started when first asked for.
    pub async fn mail(&self) -> Result<&Mail> {
        self.mail.get_or_try_init(|| self.start_mail()).await
    }

    /// The brokers, started when first asked for.
    pub async fn kafka(&self) -> Result<&Kafka> {
        self.kafka
            .get_or_try_init(async || {
                let kafka = Kafka::new(&self.dir, self.brokers)?;
                kafka.start().await?;
                Ok(kafka)
            })
            .await
    }

    /// The database, started when first asked for.
    pub async fn postgres(&self) -> Result<&Postgres> {
        self.postgres
            .get_or_try_init(async || {
                let [port] = free_ports()?;
                let postgres = Postgres {
                    dir: self.dir.join("postgres"),
                    port,
                };
                postgres.start().await?;
                Ok(postgres)
            })
            .await
    }

    /// Object storage, started when first asked for.
    pub async fn storage(&self) -> Result<&Storage> {
        self.storage
            .get_or_try_init(async || {
                let [port] = free_ports()?;
                let dir = self.dir.join("s3");
                script("s3.sh", "start", &dir, &[&port.to_string(), BUCKET]).await?;
                Ok(Storage {
                    port,
                    folder: dir.join("objects").join(BUCKET),
                })
            })
            .await
    }

    /// Stops all of it and removes the folder.
    pub async fn stop(&self) -> Result<()> {
        let mut guard = self.guard.lock().await;
        drop(guard.stdin.take());
        guard.wait().await?;
        Ok(())
    }

    async fn start_mail(&self) -> Result<Mail> {
        let [imap_port, lmtp_port, smtp_port] = free_ports()?;
        let boxes = self.dir.join("boxes");
        std::fs::write(&boxes, &self.boxes)?;
        let [dovecot, postfix] = [self.dir.join("dovecot"), self.dir.join("postfix")];
        let [imap, lmtp, smtp] = [imap_port, lmtp_port, smtp_port].map(|port| port.to_string());
        script(
            "dovecot.sh",
            "start",
            &dovecot,
            &[&imap, &lmtp, &boxes.to_string_lossy()],
        )
        .await?;
        script(
            "postfix.sh",
            "start",
            &postfix,
            &[&smtp, &lmtp, &boxes.to_string_lossy()],
        )
        .await?;
        Ok(Mail {
            imap_port,
            smtp_port,
            folder: dovecot.join("mail"),
            dovecot,
            postfix,
            lmtp_port,
            boxes,
        })
    }
}

impl Mail {
    /// Stops Dovecot and starts it again; mail that comes meanwhile waits in Postfix.
    pub async fn restart_dovecot(&self) -> Result<()> {
        script("dovecot.sh", "stop", &self.dovecot, &[]).await?;
        let [imap, lmtp] = [self.imap_port, self.lmtp_port].map(|port| port.to_string());
        let boxes = self.boxes.to_string_lossy();
        script("dovecot.sh", "start", &self.dovecot, &[&imap, &lmtp, &boxes]).await
    }

    /// Whether Postfix has handed over everything that it took.
    pub async fn has_delivered_all(&self) -> Result<bool> {
        let queue = Command::new("postqueue")
            .arg("-c")
            .arg(self.postfix.join("etc"))
            .arg("-j")
            .output()
            .await
            .context("cannot run postqueue")?;
        ensure!(
            queue.status.success(),
            "postqueue: {}",
            String::from_utf8_lossy(&queue.stderr)
        );
        Ok(queue.stdout.is_empty())
    }

    /// Gives a mailbox another UIDVALIDITY, which cuts who reads it.
    pub async fn set_uid_validity(&self, address: &str, uid_validity: u32) -> Result<()> {
        let config = self.dovecot.join("dovecot.conf");
        let output = Command::new("doveadm")
            .arg("-c")
            .arg(config)
            .args(["mailbox", "update", "-u", address, "--uid-validity"])
            .arg(uid_validity.to_string())
            .arg("INBOX")
            .output()
            .await
            .context("cannot run doveadm")?;
        ensure!(
            output.status.success(),
            "doveadm: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

impl Kafka {
    fn new(dir: &Path, count: usize) -> Result<Self> {
        let ports = (0..count).map(|_| free_ports::<4>()).collect::<Result<Vec<_>>>()?;
        let controllers: Vec<String> = ports.iter().map(|[_, controller, ..]| controller.to_string()).collect();
        let broker = |(index, ports): (usize, &[u16; 4])| {
            let [port, controller_port, behind_port, proxy_port] = *ports;
            Broker {
                dir: dir.join(format!("kafka-{}", index + 1)),
                port,
                behind_port,
                proxy_port,
                id: index + 1,
                controller_port,
                controllers: controllers.join(","),
            }
        };
        let brokers: Vec<Broker> = ports.iter().enumerate().map(broker).collect();
        let port = brokers.first().context("no broker")?.port;
        Ok(Self { brokers, port })
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        url(self.brokers.iter().map(|broker| broker.port))
    }

    /// Where they find it that come through the proxies.
    pub fn proxied_url(&self) -> String {
        url(self.brokers.iter().map(|broker| broker.proxy_port))
    }

    /// Starts all, which find each other.
    pub async fn start(&self) -> Result<()> {
        try_join_all(self.brokers.iter().map(Broker::start)).await?;
        super::kafka::all_there(self).await
    }

    pub async fn stop(&self) -> Result<()> {
        try_join_all(self.brokers.iter().map(Broker::stop)).await?;
        Ok(())
    }
}

/// Of the server of this folder.
fn pid(dir: &Path) -> Result<u32> {
    Ok(std::fs::read_to_string(dir.join("pid"))?.trim().parse()?)
}

fn url(ports: impl Iterator<Item = u16>) -> String {
    let brokers: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    format!("kafka:{}", brokers.join(","))
}

impl Broker {
    pub async fn start(&self) -> Result<()> {
        let ports = [self.port, self.controller_port, self.behind_port, self.proxy_port];
        let mut arguments = ports.map(|port| port.to_string()).to_vec();
        arguments.extend([self.id.to_string(), self.controllers.clone()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        script("kafka.sh", "start", &self.dir, &arguments).await
    }

    async fn stop(&self) -> Result<()> {
        script("kafka.sh", "stop", &self.dir, &[]).await
    }

    pub fn pid(&self) -> Result<u32> {
        pid(&self.dir)
    }

    /// It is gone from one moment to the next.
    pub async fn kill(&self) -> Result<()> {
        script("kafka.sh", "kill", &self.dir, &[]).await
    }
}

impl Postgres {
    pub async fn start(&self) -> Result<()> {
        script("postgres.sh", "start", &self.dir, &[&self.port.to_string()]).await
    }

    pub async fn stop(&self) -> Result<()> {
        script("postgres.sh", "stop", &self.dir, &[]).await
    }

    /// Stops it at once, in the middle of everything.
    pub async fn crash(&self) -> Result<()> {
        script("postgres.sh", "crash", &self.dir, &[]).await
    }

    /// Writes a backup.
    pub async fn back_up(&self, file: &Path) -> Result<()> {
        self.tool("pg_dump", &["-Fc", "-f", &file.to_string_lossy(), "tributary"])
            .await
    }

    /// Puts a backup in the place of what there is, whoever is connected.
    pub async fn put_back(&self, file: &Path) -> Result<()> {
        self.tool("dropdb", &["--force", "tributary"]).await?;
        self.tool("createdb", &["tributary"]).await?;
        self.tool("pg_restore", &["-d", "tributary", &file.to_string_lossy()])
            .await
    }

    /// Writes everything out, so that what comes next begins alike.
    pub async fn checkpoint(&self) -> Result<()> {
        self.tool("psql", &["-q", "-c", "CHECKPOINT", "postgres"]).await
    }

    async fn tool(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let output = Command::new(name)
            .args(["-h", "127.0.0.1", "-U", "tributary", "-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .await
            .with_context(|| format!("cannot run {name}"))?;
        ensure!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Of the process that all others are children of.
    pub fn pid(&self) -> Result<u32> {
        pid(&self.dir)
    }

    pub fn url(&self) -> String {
        format!("postgres://tributary@127.0.0.1:{}/tributary", self.port)
    }
}

async fn script(name: &str, verb: &str, dir: &Path, arguments: &[&str]) -> Result<()> {
    let started = Instant::now();
    let output = Command::new(repository().join("deploy/dev").join(name))
        .arg(verb)
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(
        output.status.success(),
        "{name} {verb}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("      {name} {verb}: {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// Changes a file's mode.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(())
}
