//! `kill -9` while adapters are uploaded, replaced, rolled back and removed: the folder is whole afterwards, and is served
//! again as it lies there. `GRAFT_LONG=1` does it more often.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use graft_tests::fixture::House;
use serde_json::Value;

const NAMES: [&str; 3] = ["one", "two", "three"];

/// What a name holds, as far as a client knows: the digest of its files, that of what they replaced.
#[derive(Debug, Clone, Default, PartialEq)]
struct Held {
    now: Option<String>,
    before: Option<String>,
}

/// What a client did until its server died: what it was told last, and what may have become of that.
#[derive(Debug)]
struct Done {
    told: Held,
    asked: Option<Held>,
    changes: usize,
}

struct Variant {
    digest: String,
    tar: Vec<u8>,
}

fn digest(dir: &Path) -> Option<String> {
    let files = graft_adapters::files_of(dir);
    (!files.is_empty()).then(|| graft_adapters::digest_files(files).unwrap())
}

fn variant(dir: &Path) -> Variant {
    let mut tar = tar::Builder::new(Vec::new());
    for file in graft_adapters::files_of(dir) {
        tar.append_path_with_name(&file, file.file_name().unwrap()).unwrap();
    }
    Variant { digest: digest(dir).unwrap(), tar: tar.into_inner().unwrap() }
}

/// Numbers that look random; the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(house: &House) -> Server {
        let line =
            "serve --base base --adapters adapters --listen 127.0.0.1:0 --threads 1 --set watch_seconds=0.05";
        let mut command = house.command(line);
        command.env("GRAFT_ADMIN_KEY", "root").stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server did not start: {said:#?}") };
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.split([',', ' ', '"', '/']).next().unwrap().to_owned();
            }
            assert!(!line.contains("is not served"), "{line}");
            said.push(line);
        };
        // Nobody reads what it says from here on, and it must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, address }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Asks a server; status, head and body, or none where it died meanwhile.
fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> Option<(u16, String, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: graft\r\nauthorization: Bearer root\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map(str::parse::<usize>);
    // An answer that was cut off is none.
    if status != 204 && length != Some(Ok(body.len())) {
        return None;
    }
    let json = if body.is_empty() { Value::Null } else { serde_json::from_str(body).ok()? };
    Some((status, head.to_owned(), json))
}

fn held(state: &Value) -> Held {
    let digest = |v: &Value| v["digest"].as_str().map(str::to_owned);
    Held { now: digest(state), before: digest(&state["previous"]) }
}

/// Changes one adapter again and again until the server dies.
fn change(address: &str, name: &str, variants: &[Variant], dice: &mut Dice) -> Done {
    let path = format!("/admin/adapters/{name}");
    let told = match ask(address, "GET", &path, b"") {
        Some((200, _, state)) => held(&state),
        _ => Held::default(),
    };
    let mut done = Done { told, asked: None, changes: 0 };
    loop {
        let told = done.told.clone();
        let (answer, wanted) = match dice.below(10) {
            0 if told.now.is_some() => (ask(address, "DELETE", &path, b""), Held::default()),
            1..=3 if told.before.is_some() => {
                let back = ask(address, "POST", &format!("{path}/rollback"), b"");
                (back, Held { now: told.before, before: told.now })
            }
            _ => {
                let new = &variants[dice.below(variants.len())];
                let same = told.now.as_ref() == Some(&new.digest);
                let replaced = Held { now: Some(new.digest.clone()), before: told.now.clone() };
                (ask(address, "PUT", &path, &new.tar), if same { told } else { replaced })
            }
        };
        match answer {
            None => {
                done.asked = Some(wanted);
                return done;
            }
            Some((status, _, state)) => {
                assert!(status == 200 || status == 204, "{name}: {status} {state}");
                done.told = held(&state);
                assert_eq!(done.told, wanted, "{name}");
                done.changes += 1;
            }
        }
    }
}

/// Everything hidden in the folder of the adapters, and how many former revisions each has.
fn hidden(root: &Path) -> (Vec<String>, BTreeMap<String, usize>) {
    let names = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir).map(|l| l.flatten().map(|e| e.path()).collect()).unwrap_or_default()
    };
    let name = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().into_owned();
    let inside =
        names(root).into_iter().flat_map(|p| if name(&p).starts_with('.') { vec![p] } else { names(&p) });
    let hidden = inside.map(|p| name(&p)).filter(|n| n.starts_with('.') && n != ".graft-former").collect();
    let former = names(&root.join(".graft-former"));
    (hidden, former.iter().map(|p| (name(p), names(p).len())).collect())
}

#[test]
fn a_server_that_is_killed_at_any_moment_leaves_a_folder_that_is_whole() {
    let Some(house) = House::new() else { return };
    let mut variants = Vec::new();
    for seed in 1..=3 {
        let out = format!("variant{seed}");
        house.run(&House::training(&out, &format!("--method lora --epochs 1 --seed {seed}"))).succeeded();
        variants.push(variant(&house.path(&out)));
    }
    let root = house.path("adapters");
    std::fs::create_dir(&root).unwrap();
    let rounds = if std::env::var_os("GRAFT_LONG").is_some() { 200 } else { 12 };
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut changes, mut begun) = (0, 0);
    for round in 0..rounds {
        let server = Server::start(&house);
        let (left, former) = hidden(&root);
        assert_eq!(left, [""; 0], "round {round}: left over after a start");
        assert!(former.values().all(|n| *n == 1), "round {round}: {former:?}");
        for name in NAMES {
            let Some(on_disk) = digest(&root.join(name)) else { continue };
            let asked = ask(&server.address, "POST", &format!("/a/{name}/predict"), br#"{"inputs":"old"}"#);
            let (status, head, answer) = asked.unwrap();
            assert_eq!(status, 200, "round {round}: {name}: {answer}");
            assert!(head.contains(&on_disk), "round {round}: {name} is not served as it lies there: {head}");
        }
        let clients: Vec<_> = NAMES
            .map(|name| {
                let (address, mut dice) = (server.address.clone(), Dice(dice.below(usize::MAX) as u64 | 1));
                let all: Vec<Variant> = variants
                    .iter()
                    .map(|v| Variant { digest: v.digest.clone(), tar: v.tar.clone() })
                    .collect();
                (name, std::thread::spawn(move || change(&address, name, &all, &mut dice)))
            })
            .into();
        std::thread::sleep(Duration::from_millis(100 + dice.below(500) as u64));
        server.kill();
        for (name, client) in clients {
            let done = client.join().unwrap();
            let dir = root.join(name);
            let lies = digest(&dir);
            let may = [Some(&done.told), done.asked.as_ref()];
            assert!(
                may.into_iter().flatten().any(|h| h.now == lies),
                "round {round}: {name} holds {lies:?} after {done:?}"
            );
            if lies.is_some() {
                graft_adapters::load(&dir).unwrap_or_else(|e| panic!("round {round}: {name}: {e}"));
            }
            changes += done.changes;
            begun += usize::from(done.asked.is_some());
        }
    }
    println!("{changes} changes in {rounds} rounds, {begun} cut off");
    assert!(changes > rounds && begun > 0, "nothing was cut off");
}
