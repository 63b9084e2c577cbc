//! Databases for the tests: a SQLite file, or a database of its own on a real
//! PostgreSQL. `TRIBUTARY_TEST_POSTGRES=postgres://…` names a server; without it
//! the first test starts one, which stops with the process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::Store;

/// A database of one test.
pub(crate) struct Database {
    pub url: String,
    folder: Option<tempfile::TempDir>,
}

impl Database {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/desk.db", folder.path().display());
        Self {
            url,
            folder: Some(folder),
        }
    }

    pub(crate) async fn postgres() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let server = server();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{count}", std::process::id());
        let mut admin = PgConnection::connect(server).await.unwrap();
        admin
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        Self {
            url: format!("{base}/{name}"),
            folder: None,
        }
    }

    /// A store with its schema.
    pub(crate) async fn store(&self) -> Store {
        let store = Store::open(&self.url).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    /// Gives everything back, when the test is through.
    pub(crate) async fn drop_database(self) {
        if self.folder.is_none() {
            let (_, name) = self.url.rsplit_once('/').unwrap();
            let mut admin = PgConnection::connect(server()).await.unwrap();
            admin
                .execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
                .await
                .unwrap();
        }
    }
}

/// The server's url, with the database to connect to for making others.
fn server() -> &'static str {
    static SERVER: OnceLock<(String, Option<Child>)> = OnceLock::new();
    let (url, _) = SERVER.get_or_init(|| match std::env::var("TRIBUTARY_TEST_POSTGRES") {
        Ok(url) => (url, None),
        Err(_) => {
            let (url, child) = start();
            (url, Some(child))
        }
    });
    url
}

/// The shell waits for the end of its input, which comes with the end of this
/// process however it ends, and takes the server down with it.
fn start() -> (String, Child) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let script = format!(
        r#"set -e
        PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)"
        folder=$(mktemp -d)
        trap exit INT TERM HUP
        initdb -D "$folder/data" -U tributary -A trust --no-sync -E UTF8 --locale=C >"$folder/log" 2>&1 || {{ cat "$folder/log" >&2; exit 1; }}
        trap 'pg_ctl -D "$folder/data" -m immediate stop >/dev/null 2>&1; rm -rf "$folder"' EXIT
        pg_ctl -D "$folder/data" -w -l "$folder/log" -o "-p {port} -k $folder -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=300" start >/dev/null 2>&1 </dev/null || {{ cat "$folder/log" >&2; exit 1; }}
        echo ready
        cat >/dev/null
        "#
    );
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|metadata| {
        use std::os::unix::fs::MetadataExt;
        metadata.uid() == 0
    });
    let mut command = if is_root {
        let mut command = Command::new("su");
        command.args(["postgres", "-s", "/bin/sh", "-c", &script]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    };
    let mut child = command
        .current_dir("/tmp")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(
        line.trim(),
        "ready",
        "PostgreSQL did not start; its binaries are needed"
    );
    (format!("postgres://tributary@127.0.0.1:{port}/postgres"), child)
}

/// Every test on both databases: modules `sqlite` and `postgres` of the file it
/// stands in. A test takes the [`Database`] by reference.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let database = crate::testing::Database::sqlite().await;
                    super::$test(&database).await;
                    database.drop_database().await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let database = crate::testing::Database::postgres().await;
                    super::$test(&database).await;
                    database.drop_database().await;
                }
            )*
        }
    };
}
pub(crate) use on_both;
