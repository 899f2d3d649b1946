//! `graft serve`, running in a [`House`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fixture::House;

/// A server that ends with this.
#[derive(Debug)]
pub struct Server {
    /// Where it listens: `127.0.0.1:PORT`.
    pub address: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The lines of the headers, in small letters.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// A header's value; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        let of = |l: &'_ String| l.strip_prefix(name).and_then(|l| l.strip_prefix(':')).is_some();
        self.headers.iter().find(|l| of(l)).map_or("", |l| l[name.len() + 1..].trim())
    }
}

impl House {
    /// Starts `graft serve` with further arguments, separated by spaces, and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn server(&self, more: &str, env: &[(&str, &str)]) -> Server {
        let line = format!("serve --base base --listen 127.0.0.1:0 --threads 1 {more}");
        let mut command = self.command(&line);
        command.envs(env.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("graft starts");
        let stderr = child.stderr.take().expect("it is piped");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (found, address) = mpsc::channel();
        let kept = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, at)) = line.split_once(" at http://") {
                    let at: String =
                        at.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
                    let _ = found.send(at);
                }
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let address = address.recv_timeout(Duration::from_secs(120)).unwrap_or_default();
        let server = Server { address, child, lines, reader: Some(reader) };
        assert!(!server.address.is_empty(), "it does not listen: {:?}", server.lines());
        server
    }
}

impl Server {
    /// What it said until now.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request with further lines of headers.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a socket");
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.address,
            body.len()
        );
        headers.iter().for_each(|h| head.push_str(&format!("{h}\r\n")));
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).expect("a status");
        Reply { status, headers: lines.map(str::to_lowercase).collect(), body: body.to_owned() }
    }

    /// Ends it and gives all that it said.
    pub fn stop(mut self) -> Vec<String> {
        self.end();
        self.lines()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Ends it at once.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
