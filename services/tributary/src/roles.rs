//! Starts a role: everything in the order in which it is needed, then its loops,
//! and stops all of it within ten seconds.

use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use bus::Bus;
use channels::guard::Guard;
use channels::inbox::Inbox;
use channels::list::Accounts;
use channels::live::{self, Live};
use futures_util::FutureExt;
use prometheus_client::registry::Registry;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::gauges::Gauges;
use crate::greeting::Greeting;
use crate::ops::Ops;
use crate::settings::check::{self, Checked};
use crate::settings::{Invalid, Settings};
use crate::tasks::{Tasks, watch_signals};
use crate::{descriptors, keys, listener, ops, telemetry};

/// For what the bus has under way after the tasks have ended.
const BUS_GRACE: Duration = Duration::from_secs(3);
/// For the database's connections, which have nothing to do any more.
const STORE_GRACE: Duration = Duration::from_secs(1);
/// Between attempts to reach what is away at the start: doubles up to the second.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Routers share the partitions as members of this group.
pub const ROUTER_GROUP: &str = "tributary-router";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    All,
    Gateway,
    Worker,
    Router,
    Api,
}

/// What the operators' listener looks at, as it comes to be.
pub struct Parts {
    /// Of all metrics; grows while the role starts.
    pub registry: Mutex<Registry>,
    pub bus: OnceLock<Bus>,
    pub store: OnceLock<Store>,
    /// Set when the role's own work begins.
    pub started: OnceLock<bool>,
}

impl Parts {
    /// Nothing there yet but the metrics that are registered.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry: Mutex::new(registry),
            bus: OnceLock::new(),
            store: OnceLock::new(),
            started: OnceLock::new(),
        }
    }
}

impl Role {
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Gateway => "gateway",
            Self::Worker => "worker",
            Self::Router => "router",
            Self::Api => "api",
        }
    }

    /// Takes what is pushed to us.
    pub fn receives(self) -> bool {
        matches!(self, Self::All | Self::Gateway)
    }

    /// Does what is held by a lease.
    pub fn works(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }

    /// Applies events and looks after clocks.
    pub fn routes(self) -> bool {
        matches!(self, Self::All | Self::Router)
    }

    /// Serves the desk.
    pub fn serves_desk(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }

    /// A gateway lives without the database, though live conversations stand still
    /// while it is away.
    pub fn needs_store(self) -> bool {
        self != Self::Gateway
    }
}

/// Runs the role until a signal or a fault. Everything is checked before a port
/// opens or a file is created.
pub async fn run(role: Role, settings: Settings) -> Result<()> {
    telemetry::start_logs(&settings.log);
    let (checked, has_keys) = checked(role, settings)?;
    let ports = Ports::bind(role, &checked.settings).await?;
    create_data_folder(&checked.settings)?;
    let checked = if has_keys {
        checked
    } else {
        let keys = keys::create(&checked.settings)?;
        check::check(checked.settings, keys)?
    };
    descriptors::ask_for_all();
    let stop = CancellationToken::new();
    let signals = tokio::spawn(watch_signals(stop.clone()));
    let outcome = start(role, checked, ports, &stop).await;
    signals.abort();
    outcome
}

/// The checked settings, and whether the installation has its keys.
fn checked(role: Role, settings: Settings) -> Result<(Checked, bool)> {
    let mut problems = match role {
        Role::All => Vec::new(),
        Role::Gateway | Role::Worker | Role::Router | Role::Api => apart(&settings),
    };
    let (keys, has_keys) = match keys::read(&settings) {
        Ok(Some(keys)) => (keys, true),
        Ok(None) => (keys::throwaway()?, false),
        Err(invalid) => {
            problems.extend(invalid.0);
            (keys::throwaway()?, false)
        }
    };
    match check::check(settings, keys) {
        Ok(checked) => {
            let uses_store = role.needs_store() || live::is_needed(&checked.accounts);
            if role != Role::All && uses_store && checked.settings.store_url().starts_with("sqlite:") {
                let url = "store.url: SQLite serves the role `all` alone; for roles apart set postgres://…";
                problems.push(url.to_owned());
            }
            match problems.is_empty() {
                true => Ok((checked, has_keys)),
                false => Err(Invalid(problems).into()),
            }
        }
        Err(invalid) => {
            problems.extend(invalid.0);
            Err(Invalid(problems).into())
        }
    }
}

/// Why a role apart from the others does not start: what only one process can
/// use, or what only that process knows, does not do for several.
fn apart(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    if settings.keys.files.is_empty() {
        problems.push(
            "keys.files: this role needs a key that all replicas share; make one with \
             `head -c 32 /dev/urandom > tributary.key` and name it in `[keys] files`"
                .to_owned(),
        );
    }
    if !settings.has_kafka() {
        let url = "bus.url: a local log serves the role `all` alone; for roles apart set kafka:HOST:PORT";
        problems.push(url.to_owned());
    }
    problems
}

/// The role's listeners, taken before anything else begins.
pub struct Ports {
    pub public: Option<TcpListener>,
    pub desk: Option<TcpListener>,
    pub ops: TcpListener,
}

impl Ports {
    async fn bind(role: Role, settings: &Settings) -> Result<Self> {
        let public = match role.receives() {
            true => Some(listener::bind("public", &settings.public.listen).await?),
            false => None,
        };
        let desk = match role.serves_desk() {
            true => Some(listener::bind("desk", &settings.desk.listen).await?),
            false => None,
        };
        let ops = listener::bind("ops", &settings.ops.listen).await?;
        Ok(Self { public, desk, ops })
    }
}

/// For nobody else's eyes: everything that customers say lies in it.
fn create_data_folder(settings: &Settings) -> Result<()> {
    let path = &settings.data.path;
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("data.path: cannot create {}", path.display()))
}

async fn start(role: Role, checked: Checked, ports: Ports, stop: &CancellationToken) -> Result<()> {
    let mut tasks = Tasks::new(stop.clone());
    let mut registry = telemetry::registry();
    let gauges = Gauges::new(role, &mut registry);
    let parts = Arc::new(Parts::new(registry));
    let ops = Arc::new(Ops {
        role,
        parts: parts.clone(),
        gauges,
    });
    let greeting = Greeting::new(role, &checked.settings, &ports);
    // First of all, so that whoever watches sees us wait for a database.
    tasks.listen("ops", ports.ops, ops::routes(ops));
    let begun = begin(role, &checked, ports.public, ports.desk, &parts, &mut tasks);
    let outcome = tokio::select! {
        begun = begun => begun.map(|()| greeting.print()),
        () = stop.cancelled() => Ok(()),
    };
    if outcome.is_err() {
        stop.cancel();
    }
    let finished = tasks.finish().await;
    if let Some(bus) = parts.bus.get() {
        bus.stop(BUS_GRACE).await;
        // Kafka's threads wait by the time of day: where that was set back, whoever drops
        // the bus would wait for them until it is as late again. They end with the process.
        std::mem::forget(bus.clone());
    }
    if let Some(store) = parts.store.get() {
        let _ = tokio::time::timeout(STORE_GRACE, store.close()).await;
    }
    outcome.and(finished)
}

/// Opens what the role needs and begins its loops.
async fn begin(
    role: Role,
    checked: &Checked,
    public: Option<TcpListener>,
    desk: Option<TcpListener>,
    parts: &Parts,
    tasks: &mut Tasks,
) -> Result<()> {
    let settings = &checked.settings;
    if role.needs_store() {
        let store = patiently("the database", || prepare_store(role, checked)).await?;
        let _ = parts.store.set(store);
    } else if live::is_needed(&checked.accounts) {
        let _ = parts.store.set(Store::open(&settings.store_url()).await?);
    }
    if let Some(store) = parts.store.get().cloned() {
        let stop = tasks.stop.clone();
        tasks.spawn("hurry", async move {
            stop.cancelled().await;
            store.hurry();
            Ok(())
        });
    }
    // A Kafka that is away is no error, so whatever this says is one.
    let mut registry = parts.registry.lock().await;
    let bus = Bus::open(&settings.bus_settings(role.receives()), &mut registry).await?;
    let _ = parts.bus.set(bus.clone());
    let inbox = Inbox::new(bus.clone(), &mut registry);
    if let Some(listener) = public {
        let files = channels::links::routes(checked.keys.clone(), bus.blobs().clone());
        let mut routes = channels::gateway::routes(checked.accounts.clone(), inbox.clone()).merge(files);
        if let Some(store) = parts.store.get()
            && live::is_needed(&checked.accounts)
        {
            let (inbox, stop) = (inbox.clone(), tasks.stop.clone());
            let files = settings.files.clone();
            let live = Live::new(
                &checked.accounts,
                inbox,
                store.clone(),
                &bus,
                files,
                &mut registry,
                stop,
            );
            routes = routes.merge(live::routes(&checked.accounts, &live));
            tasks.spawn("live", live.run().map(Ok));
        }
        tasks.listen("public", listener, routes);
    }
    if let (true, Some(store)) = (role.needs_store(), parts.store.get()) {
        if let Some(listener) = desk {
            let accounts = checked.accounts.clone();
            let desk = api::Desk {
                invite: Arc::new(move |account, conversation, now| {
                    let invitation = accounts.get(account)?.channel.invitation(conversation, now)?;
                    Some((invitation.url, invitation.until))
                }),
                store: store.clone(),
                blobs: bus.blobs().clone(),
                hints: bus.hints().clone(),
                limits: settings.files.clone(),
            };
            tasks.listen("desk", listener, api::routes(desk));
        }
        let loops = Loops {
            settings,
            accounts: &checked.accounts,
            store,
            bus: &bus,
            metrics: routing::Metrics::new(&mut registry),
        };
        if role.routes() {
            loops.route(tasks);
        }
        if role.works() {
            loops.work(inbox, &mut registry, tasks)?;
        }
    }
    let _ = parts.started.set(true);
    Ok(())
}

/// What the loops share.
struct Loops<'a> {
    settings: &'a Settings,
    accounts: &'a Accounts,
    store: &'a Store,
    bus: &'a Bus,
    metrics: routing::Metrics,
}

impl Loops<'_> {
    /// Applies events, and writes what clocks say.
    fn route(&self, tasks: &mut Tasks) {
        let settings = routing::Settings {
            group: ROUTER_GROUP.to_owned(),
            readers: self.settings.router.readers,
        };
        let (bus, store, metrics) = (self.bus.clone(), self.store.clone(), self.metrics.clone());
        let routing = routing::run(settings, bus, store.clone(), metrics.clone(), tasks.stop.clone());
        tasks.spawn("routing", async move { Ok(routing.await?) });
        let clocks = routing::clock::run(store, metrics, tasks.stop.clone());
        tasks.spawn("clocks", async move { Ok(clocks.await?) });
    }

    /// Everything that is held by a lease.
    fn work(&self, inbox: Inbox, registry: &mut Registry, tasks: &mut Tasks) -> Result<()> {
        let (owner, period, stop) = (owner(), self.settings.lease_period(), &tasks.stop.clone());
        let (accounts, store, bus) = (self.accounts, self.store, self.bus);
        let pull = channels::pull::run(
            accounts.clone(),
            inbox,
            store.clone(),
            owner.clone(),
            period,
            stop.clone(),
            registry,
        );
        tasks.spawn("pull", pull.map(Ok));
        let deliver = channels::deliver::run(
            accounts.clone(),
            store.clone(),
            bus.blobs().clone(),
            owner.clone(),
            period,
            stop.clone(),
            registry,
        );
        tasks.spawn("deliver", async move { Ok(deliver.await?) });
        let guard = |allow_private| Guard::new(allow_private).map_err(anyhow::Error::msg);
        let media = channels::media::run(
            accounts.clone(),
            store.clone(),
            bus.blobs().clone(),
            self.settings.files.clone(),
            (guard(false)?, guard(true)?),
            stop.clone(),
            registry,
        );
        tasks.spawn("media", async move { Ok(media.await?) });
        let removal = routing::removal::run(store.clone(), bus.clone(), owner.clone(), period, stop.clone());
        tasks.spawn("removal", async move { Ok(removal.await?) });
        let (store, bus, metrics) = (store.clone(), bus.clone(), self.metrics.clone());
        let relay = routing::relay::run(store, bus, metrics, owner, period, stop.clone());
        tasks.spawn("relay", async move { Ok(relay.await?) });
        Ok(())
    }
}

/// Opens the database, brings or checks its schema, and declares what the
/// settings say. All of it may be done again.
pub async fn prepare_store(role: Role, checked: &Checked) -> Result<Store> {
    let store = Store::open(&checked.settings.store_url()).await?;
    if role == Role::All {
        store.migrate().await?;
    }
    store.check_schema().await?;
    // Routers decide by what is declared; the others find it in the store.
    if role.routes() {
        store.declare(&checked.declared()).await?;
        store.declare_accounts(&checked.declarations()).await?;
        store.declare_people(&checked.people()).await?;
    }
    if role == Role::All {
        keys::create_first_token(&checked.settings, &store).await?;
    }
    Ok(store)
}

/// Tries again for as long as it is merely away.
async fn patiently<T, F: Future<Output = Result<T>>>(what: &'static str, attempt: impl Fn() -> F) -> Result<T> {
    let (mut pause, longest) = RETRY_PAUSE;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if is_away(&error) => error,
            Err(error) => return Err(error),
        };
        let error = format!("{error:#}");
        tracing::warn!(error, "{what} is away, trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

fn is_away(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(store::Error::Unavailable { .. }))
        || matches!(error.downcast_ref(), Some(bus::Error::Unavailable(_)))
}

/// Who holds our leases: no other process, now or later, has this name.
fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}-{}", host.trim(), std::process::id(), &random[..8])
}
