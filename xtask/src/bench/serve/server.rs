//! A running `graft serve`, and what is asked of it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench::{Bench, Figures};
use crate::error::{Error, Result};
use crate::process;

/// The administrator's key.
const KEY: &str = "bench";
/// How long a server has to listen: thousands of adapters are loaded first.
const START: Duration = Duration::from_secs(600);

/// A server that ends with this.
pub struct Server {
    /// Where it listens, like `http://127.0.0.1:8080`.
    pub url: String,
    child: Child,
    agent: ureq::Agent,
}

impl Server {
    /// Starts one over the base with the adapters of a folder, and waits until it listens.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn start(bench: &Bench<'_>, adapters: &Path) -> Result<Server> {
        let mut command = bench.graft("serve");
        command.arg("--base").arg(bench.base()).arg("--adapters").arg(adapters);
        command.args(["--listen", "127.0.0.1:0", "--threads", &bench.threads.to_string()]);
        command.env("GRAFT_ADMIN_KEY", KEY).stdout(Stdio::null()).stderr(Stdio::piped());
        let line = process::shown(&command);
        eprintln!("\n$ {line}");
        let mut child = command.spawn().map_err(|source| Error::Start { program: line.clone(), source })?;
        let (tell, told) = channel();
        let pipe = child.stderr.take();
        std::thread::spawn(move || {
            for said in
                pipe.into_iter().flat_map(|p| BufReader::new(p).lines().map_while(std::result::Result::ok))
            {
                eprintln!("{said}");
                if let Some(at) = said.find("http://") {
                    let url = said[at..].split([' ', ',']).next().unwrap_or_default();
                    let _ = tell.send(url.to_owned());
                }
            }
        });
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut server = Server { url: String::new(), child, agent };
        match told.recv_timeout(START) {
            Ok(url) => server.url = url,
            Err(_) => return Err(Error::Failed { command: line, status: "it does not listen".into() }),
        }
        Ok(server)
    }

    /// Posts JSON and returns what is answered.
    ///
    /// # Errors
    /// Where that is not 200.
    pub fn post(&self, path: &str, body: &Value) -> Result<String> {
        let url = format!("{}{path}", self.url);
        let failed = |status: String| Error::Failed { command: format!("POST {url}"), status };
        let sent = self.agent.post(&url).header("authorization", format!("Bearer {KEY}"));
        let mut answer = sent
            .header("content-type", "application/json")
            .send(body.to_string())
            .map_err(|e| failed(e.to_string()))?;
        let text = answer.body_mut().read_to_string().map_err(|e| failed(e.to_string()))?;
        if answer.status().as_u16() == 200 { Ok(text) } else { Err(failed(text)) }
    }

    /// Asks an adapter about a short text; how long it took, in milliseconds.
    ///
    /// # Errors
    /// As [`Server::post`].
    pub fn ask(&self, adapter: &str) -> Result<f64> {
        let began = Instant::now();
        let body = serde_json::json!({ "inputs": "How far is it from Denver to Aspen ?" });
        self.post(&format!("/a/{adapter}/predict"), &body)?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    /// Its resident memory, in MB.
    pub fn resident_mb(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024.0 / 1e6)
    }

    /// `graft bench serve` against it, with further arguments.
    pub fn driver(&self, bench: &Bench<'_>, seconds: f64, args: &[&str]) -> std::process::Command {
        let mut command = bench.graft("bench");
        command.args(["serve", "--url", &self.url, "--json", "--duration", &seconds.to_string()]);
        command.args(args).env("GRAFT_ADMIN_KEY", KEY);
        command
    }

    /// Runs `graft bench serve` and reads its figures.
    ///
    /// # Errors
    /// When it fails.
    pub fn drive(&self, bench: &Bench<'_>, seconds: f64, args: &[&str]) -> Result<Figures> {
        bench.measure("serve", &mut self.driver(bench, seconds, args))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number at a place of figures, like `latency_ms/p50`.
pub fn number(figures: &Figures, place: &str) -> Option<f64> {
    let (first, rest) = place.split_once('/').map_or((place, ""), |(a, b)| (a, b));
    let found = figures.get(first)?;
    if rest.is_empty() { found.as_f64() } else { found.pointer(&format!("/{rest}"))?.as_f64() }
}
