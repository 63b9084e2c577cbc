//! What is printed when a role works: what listens where, and what to try next.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use crate::roles::{Ports, Role};
use crate::settings::Settings;
use crate::{commands, keys};

/// Known at the binding of the ports, printed once the role works.
pub struct Greeting {
    lines: Vec<String>,
    token_file: PathBuf,
    desk: Option<SocketAddr>,
}

impl Greeting {
    /// What these ports and settings have to tell.
    pub fn new(role: Role, settings: &Settings, ports: &Ports) -> Self {
        let address = |listener: Option<&TcpListener>| listener.and_then(|listener| listener.local_addr().ok());
        let desk = address(ports.desk.as_ref());
        let data = settings.data.path.display();
        let version = env!("CARGO_PKG_VERSION");
        let mut lines = vec![format!("Tributary {version}, {}, data in {data}", role.as_str())];
        let listeners = [
            ("public", address(ports.public.as_ref()), "POST /in/{account}"),
            ("desk", desk, "/v1/tickets, /v1/openapi.json"),
            ("ops", address(Some(&ports.ops)), "/health/ready, /metrics"),
        ];
        for (name, address, routes) in listeners {
            lines.extend(address.map(|address| format!("  {name:<8} http://{address}  {routes}")));
        }
        Self {
            lines,
            token_file: settings.in_data(keys::TOKEN_FILE),
            desk,
        }
    }

    /// Prints it to standard output.
    pub fn print(mut self) {
        if let Some(desk) = self.desk.filter(|_| self.token_file.exists()) {
            let file = self.token_file.display();
            self.lines.extend([
                format!("  token    {file}  (administrator)"),
                "Try: make demo".to_owned(),
                format!("     curl -H \"Authorization: Bearer $(cat {file})\" http://{desk}/v1/tickets"),
            ]);
        }
        for line in self.lines {
            // Nobody may be listening; that is no fault.
            let _ = commands::print(&line);
        }
    }
}
