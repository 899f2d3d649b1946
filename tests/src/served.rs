//! A running `graft serve` over the folder of a test, with gRPC and an administrator.

use std::time::{Duration, Instant};

use crate::fixture::House;
use crate::server::Server;

/// The administrator's key of these servers.
pub const ADMIN_KEY: &str = "root";

/// How long a server has to listen for gRPC once it listens for HTTP.
const START: Duration = Duration::from_secs(60);

/// A server that ends with this.
#[derive(Debug)]
pub struct Served {
    /// Where it listens, like `http://127.0.0.1:8080`.
    pub http: String,
    /// Where it listens for gRPC, like `127.0.0.1:8081`.
    pub grpc: String,
    server: Server,
}

impl House {
    /// Starts `graft serve` over `base` and the folder `adapters`, with further flags separated by spaces, and waits until
    /// it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn serve(&self, more: &str) -> Served {
        let flags = format!("--adapters adapters --grpc 127.0.0.1:0 {more}");
        let server = self.server(&flags, &[("GRAFT_ADMIN_KEY", ADMIN_KEY)]);
        let began = Instant::now();
        let grpc = loop {
            let lines = server.lines();
            if let Some(at) = lines.iter().find_map(|l| l.strip_prefix("gRPC at ")) {
                break at.trim().to_owned();
            }
            assert!(began.elapsed() < START, "the server does not listen:\n{}", lines.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        };
        Served { http: format!("http://{}", server.address), grpc, server }
    }
}

impl Served {
    /// Ends it at once; what it said.
    pub fn end(&mut self) -> String {
        self.server.end();
        self.server.lines().join("\n")
    }

    /// What it answers to a GET with the administrator's key.
    ///
    /// # Panics
    /// When it can't be reached.
    pub fn get(&self, path: &str) -> String {
        let key = format!("authorization: Bearer {ADMIN_KEY}");
        self.server.ask("GET", path, &[&key], "").body
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.server.runs()
    }
}
