//! One installation to be measured: its configuration, its folder, its processes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tests::harness::process::{Process, Start};
use tests::harness::servers::{Servers, free_ports};

use crate::load::{BODY_BYTES, Connection, Make, SECRET, Target};

/// A configuration and the folder of its data.
pub struct Site {
    pub folder: std::path::PathBuf,
    pub public: SocketAddr,
    pub desk: SocketAddr,
}

impl Site {
    /// On its own files, where no server is named.
    pub fn new(servers: &Servers, name: &str, bus: Option<&str>, database: Option<&str>) -> Result<Self> {
        let folder = servers.dir.join(name);
        std::fs::create_dir_all(&folder)?;
        let [public, desk] = free_ports()?.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let path = folder.display();
        std::fs::write(folder.join("key"), [7; 32])?;
        let bus = bus.map_or_else(|| format!("local:{path}/log.db"), str::to_owned);
        let database = database.map_or_else(|| format!("sqlite:{path}/desk.db"), str::to_owned);
        let config = format!(
            r#"
[public]
listen = "{public}"
[desk]
listen = "{desk}"
[data]
path = "{path}"
[keys]
files = ["{path}/key"]
[store]
url = "{database}"
[bus]
url = "{bus}"
[blobs]
url = "file:{path}/blobs"
[spool]
path = "{path}/spool.db"

[[queues]]
name = "support"
policy = "standard"

[[calendars]]
name = "office"
time_zone = "Europe/Berlin"
hours = {{ mon = ["08:00-17:00"], tue = ["08:00-17:00"], wed = ["08:00-17:00"], thu = ["08:00-17:00"], fri = ["08:00-17:00"] }}

[[policies]]
name = "standard"
calendar = "office"
first_response = "4h"
next_response = "8h"
resolution = "3d"

[[accounts]]
name = "bench"
channel = "webhook"
queue = "support"
secrets = ["{SECRET}"]
"#
        );
        std::fs::write(folder.join("tributary.toml"), config)?;
        Ok(Self { folder, public, desk })
    }

    /// On the real servers, in the database that all of these share.
    pub async fn on_servers(servers: &Servers, name: &str) -> Result<Self> {
        let postgres = servers.postgres().await?;
        Self::on(servers, name, &postgres.url()).await
    }

    /// On the real servers, in this database.
    pub async fn on(servers: &Servers, name: &str, database: &str) -> Result<Self> {
        let kafka = servers.kafka().await?;
        let bus = format!("kafka:127.0.0.1:{}", kafka.port);
        Self::new(servers, name, Some(&bus), Some(database))
    }

    /// With more settings.
    pub fn with(self, settings: &str) -> Result<Self> {
        let path = self.folder.join("tributary.toml");
        let text = std::fs::read_to_string(&path)? + settings;
        std::fs::write(path, text)?;
        Ok(self)
    }

    pub fn target(&self) -> Result<Target> {
        Target::new(self.public, "bench")
    }

    pub async fn start(&self, role: &str) -> Result<Process> {
        self.start_with(role, Vec::new()).await
    }

    /// As one that vendors know by this URL.
    pub async fn start_called(&self, role: &str, public_url: &str) -> Result<Process> {
        let url = ("TRIBUTARY_PUBLIC__URL".to_owned(), public_url.to_owned());
        self.start_with(role, vec![url]).await
    }

    async fn start_with(&self, role: &str, mut environment: Vec<(String, String)>) -> Result<Process> {
        let [ops_port] = free_ports()?;
        environment.push(("RUST_LOG".to_owned(), "warn".to_owned()));
        let start = Start {
            name: role.to_owned(),
            role: role.to_owned(),
            config: self.folder.join("tributary.toml"),
            dir: self.folder.join(role),
            ops_port,
            environment,
        };
        Process::start(&start).await
    }

    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        let config = self.folder.join("tributary.toml");
        let config = config.to_string_lossy();
        tests::harness::process::run_well(&[arguments, &["--config", &config]].concat()).await
    }
}

/// Puts messages into the log; ten of each sender in one thread.
pub async fn fill(target: &Target, messages: u64) -> Result<()> {
    let (address, target) = (target.address, target.clone());
    let make: Make = Arc::new(move || target.request(BODY_BYTES, 10));
    fill_with(address, &make, messages).await
}

/// Posts so many of these.
pub async fn fill_with(address: SocketAddr, make: &Make, messages: u64) -> Result<()> {
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..64 {
        let make = make.clone();
        clients.spawn(async move {
            let mut connection = Connection::open(address).await?;
            for _ in (n..messages).step_by(64) {
                connection.exchange(&make()?).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}
