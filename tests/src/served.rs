//! A running `graft serve` over the folder of a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fixture::House;

/// The administrator's key of these servers.
pub const ADMIN_KEY: &str = "root";

/// How long a server has to listen.
const START: Duration = Duration::from_secs(60);

/// A server that ends with this.
#[derive(Debug)]
pub struct Served {
    /// Where it listens, like `http://127.0.0.1:8080`.
    pub http: String,
    /// Where it listens for gRPC, like `127.0.0.1:8081`.
    pub grpc: String,
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl House {
    /// Starts `graft serve` over `base` and the folder `adapters`, with further flags separated by spaces, and waits until
    /// it listens.
    ///
    /// # Panics
    /// When it does not listen within a minute.
    pub fn serve(&self, more: &str) -> Served {
        let listen = "--listen 127.0.0.1:0 --grpc 127.0.0.1:0";
        let mut command =
            self.command(&format!("serve --base base --adapters adapters --threads 1 {listen} {more}"));
        command.env("GRAFT_ADMIN_KEY", ADMIN_KEY).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("graft starts");
        let pipe = child.stderr.take().expect("it is piped");
        let (tell, told) = channel();
        // It is read to its end: a server that can't write would stand still.
        let said = std::thread::spawn(move || {
            let mut all = String::new();
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = tell.send(line.clone());
                all.push_str(&line);
                all.push('\n');
            }
            all
        });
        let places = listening(&told);
        let mut served = Served { http: String::new(), grpc: String::new(), child, said: Some(said) };
        match places {
            Some((http, grpc)) => (served.http, served.grpc) = (http, grpc),
            None => panic!("the server does not listen:\n{}", served.end()),
        }
        served
    }
}

/// The addresses in what a server says.
fn listening(told: &Receiver<String>) -> Option<(String, String)> {
    let (mut http, mut grpc) = (None, None);
    while http.is_none() || grpc.is_none() {
        let line = told.recv_timeout(START).ok()?;
        let word = |from: usize| line[from..].split([' ', ',']).next().map(str::to_owned);
        if let Some(at) = line.find("http://") {
            http = word(at);
        } else if let Some(rest) = line.strip_prefix("gRPC at ") {
            grpc = Some(rest.trim().to_owned());
        }
    }
    Some((http?, grpc?))
}

impl Served {
    /// Ends it at once; what it said.
    pub fn end(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.said.take().and_then(|s| s.join().ok()).unwrap_or_default()
    }

    /// What it answers to a GET with the administrator's key, headers included.
    ///
    /// # Panics
    /// When it can't be reached.
    pub fn get(&self, path: &str) -> String {
        let address = self.http.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("the server listens");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {ADMIN_KEY}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server answers");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}
