//! A whole Tributary with the servers around it. The light world is one process
//! on SQLite and a local log; the heavy one is the roles apart, gateways, workers
//! and routers twice, on Kafka, PostgreSQL and object storage. Both use Dovecot and Postfix.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{Mutex, MutexGuard};

use super::customer::Sender;
use super::desk::Desk;
use super::process::{self, Process, Start};
use super::proxy::{Proxies, Proxy};
use super::servers::{BUCKET, Mail, Servers, Storage, free_ports, set_mode};
use super::settings;
use crate::vendors::slack::Slack;

/// Of leases, so that a story can watch one change hands.
pub const LEASE_SECONDS: u64 = 3;

/// A running world.
pub struct World {
    /// `light` or `heavy`.
    pub name: &'static str,
    pub servers: Arc<Servers>,
    pub mail: Mail,
    /// The settings' file.
    pub config: PathBuf,
    /// Gateways.
    pub public: Vec<String>,
    /// The API.
    pub desk_url: String,
    pub token: String,
    pub desk: Desk,
    /// Before the mail server, for the mailbox [`settings::PROXIED`].
    pub imap: Proxy,
    /// Where the answers of the account `talk` arrive.
    pub talk_port: u16,
    /// Slack, for the account that holds a socket open: it is always there, or reading
    /// would break off, and nothing would ever be quiet.
    pub slack: Slack,
    /// Where the vendors' servers of the accounts listen.
    vendor_ports: BTreeMap<&'static str, u16>,
    /// The database.
    pub store_url: String,
    /// Before the object storage, where there is one.
    pub storage: Proxies,
    /// Where its large bytes lie, as files.
    pub blobs_dir: PathBuf,
    dir: PathBuf,
    /// Of all its processes, and of an operator's commands.
    environment: Vec<(String, String)>,
    processes: Mutex<Vec<Process>>,
}

impl World {
    /// Starts everything.
    pub async fn start(name: &'static str, servers: Arc<Servers>) -> Result<Self> {
        let started = Instant::now();
        let world = match name {
            "light" => Self::light(servers).await?,
            _ => Self::heavy(servers).await?,
        };
        eprintln!("      the {name} world: {:.1} s", started.elapsed().as_secs_f32());
        Ok(world)
    }

    /// An address of ours.
    pub fn ours(&self, name: &str) -> String {
        format!("{name}@{}", settings::our_domain(self.name))
    }

    /// An address of a customer.
    pub fn theirs(&self, name: &str) -> String {
        format!("{name}@{}", settings::their_domain(self.name))
    }

    /// A system that posts to this account, at the first gateway.
    pub fn sender(&self, account: &str) -> Result<Sender> {
        Sender::new(&self.public[0], account)
    }

    /// Where this account's vendor listens.
    pub fn vendor_port(&self, account: &str) -> Result<u16> {
        let port = self.vendor_ports.get(account).copied();
        port.with_context(|| format!("no vendor of {account}"))
    }

    /// Waits until nothing is on its way anywhere.
    pub async fn quiet(&self) -> Result<()> {
        let ops: Vec<String> = self
            .processes
            .lock()
            .await
            .iter()
            .map(|process| process.ops.clone())
            .collect();
        super::ops::quiet(&ops, Duration::from_secs(60)).await
    }

    /// Starts all its processes anew with this setting from the environment besides.
    pub async fn retell(&self, name: &str, value: &str) -> Result<()> {
        let mut processes = self.processes.lock().await;
        for process in processes.iter_mut() {
            process.terminate().await?;
            process.tell(name, value);
            process.launch_again()?;
        }
        for process in processes.iter_mut() {
            process.ready().await?;
        }
        Ok(())
    }

    /// All its processes, to be read or disturbed.
    pub async fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes.lock().await
    }

    /// The processes that have ended though nobody ended them.
    pub async fn casualties(&self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for process in self.processes.lock().await.iter_mut() {
            if process.has_ended()? {
                ended.push(format!("{}, see {}", process.name, process.log.display()));
            }
        }
        Ok(ended)
    }

    /// Runs a command of an operator with this world's settings.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        let config = self.config.to_string_lossy();
        process::run_well_told(&self.environment, &[arguments, &["--config", &config]].concat()).await
    }

    async fn light(servers: Arc<Servers>) -> Result<Self> {
        let mail = servers.mail().await?.clone();
        let dir = servers.dir.join("light");
        let [public, desk, ops, talk, imap_port] = free_ports()?;
        let imap = Proxy::start(imap_port, mail.imap_port).await?;
        let data = dir.join("data");
        let own = format!(
            "[public]\nlisten = \"127.0.0.1:{public}\"\nurl = \"http://127.0.0.1:{public}\"\n[desk]\nlisten = \"127.0.0.1:{desk}\"\n\
             [data]\npath = \"{}\"\n",
            data.display()
        );
        let vendor_ports = vendor_ports()?;
        let slack = slack(&vendor_ports, public).await?;
        let config = write_settings("light", &dir, &own, &mail, [talk, imap_port], &vendor_ports)?;
        let process = Process::start(&Start {
            name: "all".to_owned(),
            role: "all".to_owned(),
            config: config.clone(),
            dir: servers.dir.join("light-all"),
            ops_port: ops,
            environment: Vec::new(),
        })
        .await?;
        let token = std::fs::read_to_string(data.join("desk-token")).context("no token of the first start")?;
        let desk_url = format!("http://127.0.0.1:{desk}");
        Ok(Self {
            name: "light",
            servers,
            mail,
            config,
            public: vec![format!("http://127.0.0.1:{public}")],
            desk: Desk::new(&desk_url, token.trim())?,
            desk_url,
            token: token.trim().to_owned(),
            imap,
            talk_port: talk,
            slack,
            vendor_ports,
            store_url: format!("sqlite:{}", data.join("desk.db").display()),
            storage: Proxies::start([]).await?,
            blobs_dir: data.join("blobs"),
            dir,
            environment: Vec::new(),
            processes: Mutex::new(vec![process]),
        })
    }

    async fn heavy(servers: Arc<Servers>) -> Result<Self> {
        let (mail, kafka, postgres) = tokio::try_join!(servers.mail(), servers.kafka(), servers.postgres())?;
        let storage = servers.storage().await?;
        let mail = mail.clone();
        let dir = servers.dir.join("heavy");
        let [public_1, public_2, desk, talk, imap_port] = free_ports()?;
        let [storage_port] = free_ports()?;
        let proxies = Proxies::start([(storage_port, storage.port)]).await?;
        let environment = Storage::environment(storage_port);
        let imap = Proxy::start(imap_port, mail.imap_port).await?;
        std::fs::create_dir_all(&dir)?;
        let key = dir.join("key");
        std::fs::write(&key, "a key of thirty-two bytes or more, for the stories")?;
        set_mode(&key, 0o600)?;
        let own = format!(
            "[public]\nurl = \"http://127.0.0.1:{public_1}\"\n[desk]\nlisten = \"127.0.0.1:{desk}\"\n[keys]\nfiles = [\"{}\"]\n[store]\nurl = \"{}\"\n\
             [bus]\nurl = \"{}\"\n[blobs]\nurl = \"s3:{BUCKET}/blobs\"\n",
            key.display(),
            postgres.url(),
            kafka.url()
        );
        let vendor_ports = vendor_ports()?;
        let slack = slack(&vendor_ports, public_1).await?;
        let config = write_settings("heavy", &dir, &own, &mail, [talk, imap_port], &vendor_ports)?;
        let path = config.to_string_lossy();
        process::run_well(&["migrate", "--config", &path]).await?;
        let mut starts = Vec::new();
        for (name, role, port) in [
            ("gateway-1", "gateway", Some(public_1)),
            ("gateway-2", "gateway", Some(public_2)),
            ("worker-1", "worker", None),
            ("worker-2", "worker", None),
            ("router-1", "router", None),
            ("router-2", "router", None),
            ("api", "api", None),
        ] {
            let [ops_port] = free_ports()?;
            let folder = servers.dir.join(format!("heavy-{name}"));
            let mut environment = environment.clone();
            environment.push(("TRIBUTARY_DATA__PATH".to_owned(), folder.display().to_string()));
            environment.extend(port.map(|port| ("TRIBUTARY_PUBLIC__LISTEN".to_owned(), format!("127.0.0.1:{port}"))));
            starts.push(Start {
                name: name.to_owned(),
                role: role.to_owned(),
                config: config.clone(),
                dir: folder,
                ops_port,
                environment,
            });
        }
        let mut processes = starts.iter().map(Process::launch).collect::<Result<Vec<_>>>()?;
        for process in &mut processes {
            process.ready().await?;
        }
        let token = process::run_well(&["token", "create", "--name", "agent", "--config", &path]).await?;
        let desk_url = format!("http://127.0.0.1:{desk}");
        Ok(Self {
            name: "heavy",
            mail,
            config,
            public: [public_1, public_2]
                .map(|port| format!("http://127.0.0.1:{port}"))
                .to_vec(),
            desk: Desk::new(&desk_url, token.trim())?,
            desk_url,
            token: token.trim().to_owned(),
            imap,
            talk_port: talk,
            slack,
            vendor_ports,
            store_url: postgres.url(),
            servers: servers.clone(),
            storage: proxies,
            blobs_dir: storage.folder.join("blobs"),
            dir,
            environment,
            processes: Mutex::new(processes),
        })
    }

    /// A folder of this world's.
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }
}

fn vendor_ports() -> Result<BTreeMap<&'static str, u16>> {
    let mut ports = BTreeMap::new();
    for (name, _) in settings::VENDORS {
        let [port] = free_ports()?;
        ports.insert(*name, port);
    }
    Ok(ports)
}

async fn slack(vendor_ports: &BTreeMap<&'static str, u16>, public: u16) -> Result<Slack> {
    let port = vendor_ports.get(settings::SLACK_SOCKET).copied().unwrap_or_default();
    Slack::start(port, &format!("http://127.0.0.1:{public}")).await
}

fn write_settings(
    world: &str,
    dir: &std::path::Path,
    own: &str,
    mail: &Mail,
    [talk_port, proxied_port]: [u16; 2],
    vendor_ports: &BTreeMap<&'static str, u16>,
) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let domain = settings::our_domain(world);
    // Keys without a section come first.
    let mut text = settings::desk(world);
    text.push_str(own);
    text.push_str(&format!("[leases]\nperiod_seconds = {LEASE_SECONDS}\n"));
    for name in settings::MAILBOXES {
        let imap_port = match *name {
            settings::PROXIED => proxied_port,
            _ => mail.imap_port,
        };
        text.push_str(&settings::mailbox(name, &domain, imap_port, mail.smtp_port));
    }
    let deliver_url = format!("http://127.0.0.1:{talk_port}/answers");
    for name in settings::WEBHOOKS {
        text.push_str(&settings::webhook(
            name,
            ["talk", "faulty-hooks"].contains(name).then_some(deliver_url.as_str()),
        ));
    }
    for name in settings::CHATS {
        text.push_str(&settings::chat(name));
    }
    for (name, channel) in settings::VENDORS {
        let port = vendor_ports.get(name).copied().unwrap_or_default();
        text.push_str(&settings::vendor(name, channel, port));
    }
    let config = dir.join("tributary.toml");
    std::fs::write(&config, text)?;
    Ok(config)
}
