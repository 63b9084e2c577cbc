//! The stories, each one file, through the public doors only, and each light
//! (one process on SQLite and a local log) and heavy (roles apart on Kafka and
//! PostgreSQL) where that makes sense.
//!
//!     cargo test -p tests --test stories -- light
//!     cargo test -p tests --test stories -- heavy::employee
//!
//! Servers start when the first story needs them and stop at the end. Stories
//! that disturb others come after the others, see [`stories::Act`].

mod stories;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use tests::harness::process;
use tests::harness::servers::Servers;
use tests::harness::settings;
use tests::harness::world::World;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use stories::{Act, STORIES, Story, Worlds};

/// What all stories of one run share.
struct Stage {
    runtime: Runtime,
    servers: OnceCell<Arc<Servers>>,
    light: OnceCell<Arc<World>>,
    heavy: OnceCell<Arc<World>>,
    times: Mutex<Vec<(String, Duration)>>,
}

/// A story under way.
type Running = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Longer than any story may take.
const LIMIT: Duration = Duration::from_secs(240);

fn main() -> Result<()> {
    let arguments = Arguments::from_args();
    if !arguments.list {
        process::build()?;
    }
    let stage = Arc::new(Stage {
        runtime: Runtime::new()?,
        servers: OnceCell::new(),
        light: OnceCell::new(),
        heavy: OnceCell::new(),
        times: Mutex::default(),
    });
    let acts = [(Act::Together, 4), (Act::Vendors, 6), (Act::Alone, 1)];
    let ended = acts.map(|(act, at_once)| run(&stage, &arguments, act, at_once));
    if !arguments.list {
        stage.runtime.block_on(stage.finish())?;
    }
    let has_failed = ended.iter().any(Conclusion::has_failed);
    std::process::exit(if has_failed { 101 } else { 0 });
}

fn run(stage: &Arc<Stage>, arguments: &Arguments, act: Act, at_once: usize) -> Conclusion {
    let mut arguments = arguments.clone();
    arguments.test_threads = arguments.test_threads.or(Some(at_once));
    let trials = STORIES
        .iter()
        .filter(|story| story.act == act)
        .flat_map(|story| trials(stage, story));
    libtest_mimic::run(&arguments, trials.collect())
}

fn trials(stage: &Arc<Stage>, story: &'static Story) -> Vec<Trial> {
    let worlds: &[&'static str] = match story.worlds {
        Worlds::Both => &["light", "heavy"],
        Worlds::Light => &["light"],
        Worlds::Heavy => &["heavy"],
    };
    let trial = |world: &'static str| {
        let stage = stage.clone();
        let name = format!("{world}::{}", story.name);
        Trial::test(name.clone(), move || stage.tell(&name, world, story))
    };
    worlds.iter().copied().map(trial).collect()
}

impl Stage {
    fn tell(&self, name: &str, world: &'static str, story: &Story) -> Result<(), Failed> {
        let outcome = self.runtime.block_on(async {
            let world = self.world(world).await?;
            let started = Instant::now();
            let outcome = tokio::time::timeout(LIMIT, (story.run)(world.clone())).await;
            self.note(name, started.elapsed());
            outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("not told after {LIMIT:?}")))?;
            let casualties = world.casualties().await?;
            anyhow::ensure!(casualties.is_empty(), "ended by itself: {casualties:?}");
            Ok(())
        });
        outcome.map_err(|error| Failed::from(format!("{error:#}")))
    }

    async fn world(&self, name: &'static str) -> Result<Arc<World>> {
        let cell = if name == "light" { &self.light } else { &self.heavy };
        let world = cell
            .get_or_try_init(async || {
                let servers = self.servers().await?;
                let started = Instant::now();
                let world = World::start(name, servers).await?;
                self.note(&format!("starting the {name} world"), started.elapsed());
                anyhow::Ok(Arc::new(world))
            })
            .await?;
        Ok(world.clone())
    }

    async fn servers(&self) -> Result<Arc<Servers>> {
        let boxes = || settings::boxes("light") + &settings::boxes("heavy");
        let servers = self
            .servers
            .get_or_try_init(async || Servers::new(boxes(), 1).map(Arc::new))
            .await?;
        Ok(servers.clone())
    }

    fn note(&self, what: &str, took: Duration) {
        if let Ok(mut times) = self.times.lock() {
            times.push((what.to_owned(), took));
        }
    }

    /// Ends both worlds in order, which they must do in time, then the servers;
    /// and says what was slow.
    async fn finish(&self) -> Result<()> {
        for world in [self.light.get(), self.heavy.get()].into_iter().flatten() {
            let started = Instant::now();
            for process in world.processes().await.iter_mut() {
                if !process.has_ended()? {
                    process.terminate().await?;
                }
            }
            self.note(&format!("stopping the {} world", world.name), started.elapsed());
        }
        if let Some(servers) = self.servers.get() {
            servers.stop().await?;
        }
        let mut times = self.times.lock().map(|times| times.clone()).unwrap_or_default();
        times.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        for (what, took) in times.iter().filter(|(_, took)| took.as_secs() >= 2) {
            println!("{:>6.1} s  {what}", took.as_secs_f32());
        }
        Ok(())
    }
}
