//! Chromium without a window, driven over its DevTools protocol.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Its names, the first that is found is taken.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// How long something may take to show.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page; it ends with this.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    page: Option<String>,
    sent: u64,
    /// What went wrong in the page: exceptions, and what its policy forbade.
    pub faults: Vec<String>,
    _profile: TempDir,
}

/// The browser's file. Where there is none it says so, except on a build server, where that is a failure.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = NAMES.iter().flat_map(|n| std::env::split_paths(&path).map(move |p| p.join(n)));
    let found = found.into_iter().find(|p| p.is_file());
    assert!(found.is_some() || std::env::var_os("CI").is_none(), "no browser: install chromium");
    if found.is_none() {
        println!("skipped: no browser ({})", NAMES.join(", "));
    }
    found
}

impl Browser {
    /// Starts it; none where there is no browser.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Browser> {
        let program = program()?;
        let profile = tempfile::tempdir().expect("a temporary folder");
        // It talks on 3 and 4, and the shell puts our pipes there. What it runs is our own page: no sandbox, which it does
        // not have as root.
        let script = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program).args([
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--window-size=1360,900",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).env("HOME", profile.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a shell");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (from, faults) = (BufReader::new(from), Vec::new());
        let mut browser = Browser { child, to, from, page: None, sent: 0, faults, _profile: profile };
        let made = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": made["targetId"], "flatten": true });
        let page = browser.call("Target.attachToTarget", attach)["sessionId"].clone();
        browser.page = page.as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    /// When the browser is gone or says no.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(page) = &self.page {
            message["sessionId"] = json!(page);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).expect("the browser answers");
            assert_eq!(bytes.pop(), Some(0), "the browser is gone");
            let mut message: Value = serde_json::from_slice(&bytes).expect("JSON");
            if message["id"] == self.sent {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.heard(&message);
        }
    }

    fn heard(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.faults.push(params["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if params["entry"]["source"] == "security" => {
                self.faults.push(params["entry"]["text"].to_string());
            }
            _ => {}
        }
    }

    /// Opens a page.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": address }));
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// When it has none.
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut found = self.call("Runtime.evaluate", params);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {}", found["exceptionDetails"]);
        found["result"]["value"].take()
    }

    /// Waits until an expression in the page is true.
    ///
    /// # Panics
    /// When it does not become so; with the page's text.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        let began = Instant::now();
        while self.value(&format!("Boolean({expression})")) != true {
            if began.elapsed() > PATIENCE {
                let text = self.value("document.body && document.body.innerText");
                panic!("never: {expression}\n{}\n{:?}", text.as_str().unwrap_or_default(), self.faults);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key; 2 in `modifiers` is Ctrl.
    pub fn press(&mut self, key: &str, modifiers: u32) {
        let code = match key {
            "Enter" => 13,
            " " => 32,
            "ArrowDown" => 40,
            _ => key.bytes().next().map_or(0, |b| u32::from(b.to_ascii_uppercase())),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params =
                json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers });
            if kind == "keyDown" && modifiers == 0 {
                match key {
                    "Enter" => params["text"] = json!("\r"),
                    key if key.chars().count() == 1 => params["text"] = json!(key),
                    _ => {}
                }
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Types a text where the cursor is.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
