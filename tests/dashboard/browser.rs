//! A headless Chromium, controlled through its DevTools protocol over a pipe: each request and each response is a line
//! of JSON that ends with a zero byte.
//!
//! Tests find elements by their role and name in the accessibility tree.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use rustix::process::{Pid, Signal, kill_process_group};

use super::common::*;

/// A browser with one page. Dropping it ends the browser, and fails the test if a script on the page failed.
pub struct Browser {
    child: Child,
    requests: Mutex<Requests>,
    answers: mpsc::Receiver<Value>,
    /// The errors of the page: uncaught exceptions, and violations of its policy.
    troubles: Arc<Mutex<Vec<String>>>,
    session: String,
    _profile: TempDir,
}

struct Requests {
    pipe: ChildStdin,
    last: u64,
}

/// The browser's id of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Element(i64);

impl Browser {
    /// Starts the browser and opens the dashboard of a server at this address behind the `#`.
    pub fn open(server: &Api, hash: &str) -> Browser {
        let browser = Browser::start();
        browser.go(server, hash);
        browser
    }

    fn start() -> Browser {
        let profile = TempDir::new();
        // The protocol's pipe is at 3 and 4, where only a shell can put it without unsafe code.
        let script = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", script, "sh", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            // What it leaves there goes with the profile.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell");
        let (send, answers) = mpsc::channel();
        let troubles = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn({
            let troubles = troubles.clone();
            move || listen(stdout, &send, &troubles)
        });
        let requests = Mutex::new(Requests { pipe: child.stdin.take().expect("piped"), last: 0 });
        let mut browser =
            Browser { child, requests, answers, troubles, session: String::new(), _profile: profile };
        let target = until_some(LIMIT, "the browser has a page (script/setup installs chromium)", || {
            let targets = browser.ask("Target.getTargets", json!({}));
            let targets = targets["targetInfos"].as_array()?;
            let page = targets.iter().find(|target| target["type"] == "page")?;
            page["targetId"].as_str().map(str::to_owned)
        });
        let attached = browser.ask("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "DOM", "Accessibility"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Runs one command of the protocol and returns the response, or `Null` while the page is changing.
    pub fn ask(&self, method: &str, params: Value) -> Value {
        let mut requests = self.requests.lock().expect("nobody panics here");
        requests.last += 1;
        let mut request = json!({"id": requests.last, "method": method, "params": params});
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        requests.pipe.write_all(format!("{request}\0").as_bytes()).expect("the browser runs");
        loop {
            let answer = self.answers.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no answer: {request}"));
            if answer["id"] == requests.last {
                return answer["result"].clone();
            }
        }
    }

    /// Goes to another address behind the `#`, loading the page anew.
    pub fn go(&self, server: &Api, hash: &str) {
        self.ask("Page.navigate", json!({"url": "about:blank"}));
        self.ask("Page.navigate", json!({"url": format!("http://{}/#{hash}", server.addr)}));
        self.wait_until("the page has come", "!!document.querySelector('h1')");
    }

    /// Loads the page anew in the same tab.
    pub fn reload(&self) {
        self.run("window.isOld = true");
        self.ask("Page.reload", json!({}));
        self.wait_until("the page is new", "!window.isOld && !!document.querySelector('h1')");
    }

    /// The value of an expression on the page.
    pub fn run(&self, expression: &str) -> Value {
        self.evaluate(expression).unwrap_or_else(|answer| panic!("{expression}: {answer}"))
    }

    /// Lets the page add the path of each further request to the API to `window.asked`.
    pub fn note_requests(&self) {
        self.run(
            "(() => {
            const ask = window.fetch;
            window.asked = [];
            window.fetch = (path, options) => {
                window.asked.push(path);
                return ask(path, options);
            };
        })()",
        );
    }

    /// The value of an expression on the page; the error is an exception on the page.
    fn evaluate(&self, expression: &str) -> Result<Value, Value> {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", params);
        if answer["exceptionDetails"].is_null() { Ok(answer["result"]["value"].clone()) } else { Err(answer) }
    }

    /// Waits until an expression is true. It may throw while an element that it names does not exist yet.
    #[track_caller]
    pub fn wait_until(&self, what: &str, expression: &str) {
        let begin = Instant::now();
        loop {
            let result = self.evaluate(expression);
            if result.as_ref().is_ok_and(|value| *value == true) {
                return;
            }
            let text = self.run("document.body?.innerText");
            let text = text.as_str().unwrap_or("no text");
            assert!(begin.elapsed() < LIMIT, "{what}: {expression}: {result:?}\n{text}");
            std::thread::sleep(ms(20));
        }
    }

    /// Waits until this text is visible somewhere on the page.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) {
        self.wait_until(text, &format!("document.body.innerText.includes({})", json!(text)));
    }

    #[track_caller]
    pub fn wait_until_gone(&self, text: &str) {
        self.wait_until(text, &format!("!document.body.innerText.includes({})", json!(text)));
    }

    /// Waits until the data of this page has been drawn.
    #[track_caller]
    pub fn wait_until_drawn(&self, title: &str) {
        let title = json!(title);
        let drawn = format!(
            "document.querySelector('h1')?.innerText === {title} && !document.querySelector('[aria-busy]')"
        );
        self.wait_until("it is drawn", &drawn);
    }

    /// Waits until a dialog is closed and its action knows the answer: the browser tells the page a while after the
    /// dialog is closed.
    #[track_caller]
    pub fn wait_until_answered(&self) {
        self.wait_until("the question is gone", "!document.querySelector('dialog[open], [aria-busy]')");
    }

    /// The first element with this role and name in the accessibility tree.
    pub fn find(&self, role: &str, name: &str) -> Option<Element> {
        let root = self.ask("Runtime.evaluate", json!({"expression": "document"}));
        let root = root["result"]["objectId"].as_str()?.to_owned();
        let wanted = json!({"objectId": root, "role": role, "accessibleName": name});
        let found = self.ask("Accessibility.queryAXTree", wanted);
        let found = found["nodes"].as_array()?.iter().find(|node| node["ignored"] == false)?;
        found["backendDOMNodeId"].as_i64().map(Element)
    }

    /// Role and name of every element in the accessibility tree.
    pub fn everything(&self) -> Vec<(String, String)> {
        let tree = self.ask("Accessibility.getFullAXTree", json!({}));
        let text = |node: &Value, field: &str| node[field]["value"].as_str().unwrap_or("").to_owned();
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let nodes = nodes.iter().filter(|node| node["ignored"] == false);
        nodes.map(|node| (text(node, "role"), text(node, "name"))).collect()
    }

    /// Role and name of the element that has the focus.
    pub fn focus(&self) -> (String, String) {
        let active = self.ask("Runtime.evaluate", json!({"expression": "document.activeElement"}));
        let id = active["result"]["objectId"].clone();
        let tree =
            self.ask("Accessibility.getPartialAXTree", json!({"objectId": id, "fetchRelatives": false}));
        let text = |field: &str| tree["nodes"][0][field]["value"].as_str().unwrap_or("").to_owned();
        (text("role"), text("name"))
    }

    #[track_caller]
    pub fn wait_for_focus(&self, role: &str, name: &str) {
        let wanted = (role.to_owned(), name.to_owned());
        let begin = Instant::now();
        while self.focus() != wanted {
            assert!(begin.elapsed() < LIMIT, "the focus is on {:?}, not on {wanted:?}", self.focus());
            std::thread::sleep(ms(20));
        }
    }

    /// Clicks the middle of an element with the mouse, once the element exists and is enabled.
    #[track_caller]
    pub fn click(&self, role: &str, name: &str) {
        let begin = Instant::now();
        until_some(LIMIT * 2, &format!("{role} {name:?} can be clicked"), || {
            assert!(begin.elapsed() < LIMIT, "no {role} {name:?} can be clicked: {:?}", self.everything());
            let Element(id) = self.find(role, name)?;
            let object = self.ask("DOM.resolveNode", json!({"backendNodeId": id}));
            let object = object["object"]["objectId"].as_str()?.to_owned();
            // Where it is once it was scrolled to, unless it is disabled or something lies on it.
            let place = "function () {
                this.scrollIntoView({ block: 'center' });
                const { x, y, width, height } = this.getBoundingClientRect();
                const at = [x + width / 2, y + height / 2];
                return !this.disabled && this.contains(document.elementFromPoint(...at)) ? at : null;
            }";
            let params = json!({"objectId": object, "functionDeclaration": place, "returnByValue": true});
            let place = self.ask("Runtime.callFunctionOn", params);
            let (x, y) = (place["result"]["value"][0].as_f64()?, place["result"]["value"][1].as_f64()?);
            for kind in ["mousePressed", "mouseReleased"] {
                let params = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
                self.ask("Input.dispatchMouseEvent", params);
            }
            Some(())
        });
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`, `Space`, `ArrowDown`.
    pub fn press(&self, key: &str) {
        let (key, code, number, text) = match key {
            "Tab" => ("Tab", "Tab", 9, ""),
            "Enter" => ("Enter", "Enter", 13, "\r"),
            "Escape" => ("Escape", "Escape", 27, ""),
            "ArrowDown" => ("ArrowDown", "ArrowDown", 40, ""),
            "Space" => (" ", "Space", 32, " "),
            other => panic!("{other} is not known here"),
        };
        let mut params = json!({"key": key, "code": code, "windowsVirtualKeyCode": number});
        params["type"] = json!(if text.is_empty() { "rawKeyDown" } else { "keyDown" });
        if !text.is_empty() {
            params["text"] = json!(text);
        }
        self.ask("Input.dispatchKeyEvent", params.clone());
        params["type"] = json!("keyUp");
        self.ask("Input.dispatchKeyEvent", params);
    }

    /// Presses the Tab key until this element has the focus.
    #[track_caller]
    pub fn tab_to(&self, role: &str, name: &str) {
        let mut passed = Vec::new();
        for _ in 0..200 {
            self.press("Tab");
            let focus = self.focus();
            if focus == (role.to_owned(), name.to_owned()) {
                return;
            }
            passed.push(focus);
        }
        panic!("Tab does not come to {role} {name:?}: {passed:?}");
    }

    /// Presses the Tab key until this element has the focus, and then Enter.
    #[track_caller]
    pub fn choose(&self, role: &str, name: &str) {
        self.tab_to(role, name);
        self.press("Enter");
    }

    /// Types into the element that has the focus.
    pub fn write(&self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text }));
    }

    /// Sets the width of the window in pixels, and its colour scheme: `light` or `dark`.
    pub fn look(&self, width: u32, scheme: &str) {
        let height = if width < 600 { 844 } else { 900 };
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.ask("Emulation.setDeviceMetricsOverride", params);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Writes a picture of the whole page, if `THREADQ_PICTURES` is set.
    pub fn picture(&self, name: &str) {
        let Ok(folder) = std::env::var("THREADQ_PICTURES") else { return };
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.ask("Page.captureScreenshot", params);
        let mut decoder = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(format!("{folder}/{name}.png")).expect("the folder is there"))
            .spawn()
            .expect("base64 of coreutils");
        let text = picture["data"].as_str().expect("a picture").as_bytes();
        decoder.stdin.take().expect("piped").write_all(text).expect("it reads");
        decoder.wait().expect("it ends");
    }

    /// Uncaught exceptions, and violations of the page's policy.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.lock().expect("nobody panics here").clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.child.wait();
        if !std::thread::panicking() {
            assert_eq!(self.troubles(), [""; 0], "on the page");
        }
    }
}

/// Reads the messages of the browser until it ends.
fn listen(stdout: ChildStdout, answers: &mpsc::Sender<Value>, troubles: &Mutex<Vec<String>>) {
    let mut stdout = BufReader::new(stdout);
    let mut message = Vec::new();
    while stdout.read_until(0, &mut message).is_ok_and(|length| length > 0) {
        message.pop();
        let said: Value = serde_json::from_slice(&message).unwrap_or_default();
        message.clear();
        let trouble = match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => said["params"]["exceptionDetails"].to_string(),
            Some("Log.entryAdded") => {
                let entry = &said["params"]["entry"];
                // An answer that is no success is one too, and expected here and there.
                if entry["level"] != "error" || entry["source"] == "network" {
                    continue;
                }
                entry.to_string()
            }
            Some(_) => continue,
            None => {
                let _ = answers.send(said);
                continue;
            }
        };
        troubles.lock().expect("nobody panics here").push(trouble);
    }
}
