//! A cell to try the built program on: a network namespace of its own (the rules of this machine are
//! never touched), a directory for every file, and Debian's CNI plugins.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use hostnet::netns::Netns;
use serde_json::{Value, json};
use tempfile::TempDir;

const PLUGINS: &str = "/usr/lib/cni";

/// Everything is gone when this is dropped.
pub struct Cell {
    pub dir: TempDir,
    process: Process,
    config: Value,
}

/// A process in a network namespace of its own: a container's, or the cell's.
pub struct Process(Child);

impl Process {
    pub fn start() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "600"])
            .spawn()
            .expect("the package util-linux is installed");
        let process = Self(child);
        let ours = Netns::current().unwrap().id();
        until("a process has its own namespace", || {
            Netns::of_process(process.pid()).is_ok_and(|netns| netns.id() != ours)
        });
        process
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn netns(&self) -> Netns {
        Netns::of_process(self.pid()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The one document on standard output of a run that succeeded, and complained of nothing.
    #[track_caller]
    pub fn answer(&self) -> Value {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// For verbs that answer nothing.
    #[track_caller]
    pub fn fine(&self) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(0), ""), "{}", self.stderr);
    }

    /// For verbs that answer nothing, and had something to say.
    #[track_caller]
    pub fn warned(&self, of: &str) {
        self.fine();
        assert!(self.stderr.contains(of), "{}", self.stderr);
    }

    /// The containers a repair has mended, in order.
    pub fn mended(&self) -> Vec<String> {
        let container = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["container"].as_str().unwrap().to_owned()
        };
        self.stdout.lines().map(container).collect()
    }

    /// What a run that failed complained of.
    #[track_caller]
    pub fn complaint(&self) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{}", self.stderr);
        &self.stderr
    }
}

impl Cell {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        let config = json!({
            "cni_plugin_dir": at("plugins"), "cni_config_dir": at("conf"),
            "bind_mount_dir": at("netns"), "state_file": at("state/state.json"),
            "start_port": 61000, "total_ports": 200, "datastore": at("store/store.json"),
            "iptables_lock_file": at("iptables.lock"), "overlay_network": "10.255.0.0/16",
            "instance_address": "10.0.16.14", "underlay_interfaces": ["eth0"],
            "log_prefix": "cell", "search_domains": ["apps.internal"],
        });
        fs::create_dir(at("plugins")).unwrap();
        fs::create_dir(at("conf")).unwrap();
        for plugin in ["ptp", "host-local"] {
            symlink(Path::new(PLUGINS).join(plugin), at("plugins").join(plugin)).unwrap();
        }
        let cell = Self { dir, process: Process::start(), config };
        cell.use_plugins(&[]);
        cell.write_config();
        cell
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The chain: ptp, then these.
    pub fn use_plugins(&self, more: &[&str]) {
        let ipam = json!({"type": "host-local", "dataDir": self.path("ipam"),
            "ranges": [[{"subnet": "10.255.30.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]});
        let mut plugins = vec![json!({"type": "ptp", "ipam": ipam})];
        plugins.extend(more.iter().map(|kind| json!({"type": kind})));
        let list = json!({"name": "net", "cniVersion": "1.0.0", "plugins": plugins});
        fs::write(self.path("conf/10-net.conflist"), list.to_string()).unwrap();
    }

    /// A plugin that is a shell script.
    pub fn script(&self, name: &str, text: &str) {
        let path = self.path("plugins").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn configure(&mut self, key: &str, value: impl Into<Value>) {
        self.config[key] = value.into();
        self.write_config();
    }

    fn write_config(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
    }

    /// Runs something in the cell's namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.process.netns().run(work).unwrap()
    }

    /// Starts the program; its standard input is still open.
    pub fn spawn(&self, action: &str, handle: &str) -> Child {
        let config_file = self.path("config.json");
        self.inside(|| {
            Command::new(env!("CARGO_BIN_EXE_external-networker"))
                .arg(format!("--configFile={}", config_file.display()))
                .args(["--action", action, "--handle", handle])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
    }

    pub fn run(&self, action: &str, handle: &str, input: &Value) -> Ran {
        finish(self.spawn(action, handle), input)
    }

    pub fn up(&self, handle: &str, container: &Process) -> Ran {
        self.run("up", handle, &request(container))
    }

    pub fn down(&self, handle: &str) -> Ran {
        self.run("down", handle, &Value::Null)
    }

    /// Has rules put right; of one container, if `more` names it.
    pub fn repair(&self, more: &[&str]) -> Ran {
        let config_file = self.path("config.json");
        let output = self.inside(|| {
            Command::new(env!("CARGO_BIN_EXE_external-networker"))
                .arg(format!("--configFile={}", config_file.display()))
                .args(["--action", "repair"])
                .args(more)
                .stdin(Stdio::null())
                .output()
                .unwrap()
        });
        Ran::new(output)
    }

    /// A process in the cell's own network namespace.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The cell's network namespace.
    pub fn netns(&self) -> Netns {
        self.process.netns()
    }

    /// All rules of the three tables, `<table> <rule>`, and the chains that are not built in.
    pub fn rules(&self) -> Vec<String> {
        let output = self.inside(|| Command::new("iptables-save").output().unwrap());
        let listing = String::from_utf8(output.stdout).unwrap();
        let (mut rules, mut table) = (Vec::new(), String::new());
        for line in listing.lines() {
            match line.as_bytes().first() {
                Some(b'*') => table = line[1..].to_owned(),
                Some(b'-') => rules.push(format!("{table} {line}")),
                Some(b':') if line.contains(" - ") => rules.push(format!("{table} {line}")),
                _ => {}
            }
        }
        rules
    }

    #[track_caller]
    pub fn has_rule(&self, rule: &str) {
        let rules = self.rules();
        assert!(rules.iter().any(|there| there == rule), "{rule} is not in\n{}", rules.join("\n"));
    }

    /// What a program prints in the cell.
    #[track_caller]
    pub fn tool(&self, program: &str, words: &str) -> String {
        let words: Vec<_> = words.split(' ').collect();
        let output = self.inside(|| Command::new(program).args(words).output().unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The cell's links, without loopback.
    pub fn links(&self) -> Vec<String> {
        let links = self.tool("ip", "-br link");
        let names = links.lines().filter_map(|line| line.split([' ', '@']).next());
        names.filter(|name| *name != "lo").map(str::to_owned).collect()
    }

    pub fn json(&self, file: &str) -> Value {
        let text = fs::read(self.path(file)).unwrap_or_default();
        if text.is_empty() { json!({}) } else { serde_json::from_slice(&text).unwrap() }
    }

    /// The store's entries, by handle.
    pub fn stored(&self) -> Vec<String> {
        self.json("store/store.json").as_object().unwrap().keys().cloned().collect()
    }

    pub fn files(&self, dir: &str) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.path(dir)) else { return Vec::new() };
        let mut names: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// No link, rule, mount, port, store entry, address or file of any container.
    #[track_caller]
    pub fn is_bare(&self) {
        assert_eq!(self.rules(), [""; 0]);
        assert_eq!(self.links(), [""; 0]);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{mounts}");
        assert_eq!(self.files("netns"), [""; 0]);
        let acquired = self.json("state/state.json");
        let acquired = acquired["acquired_ports"].as_object();
        assert!(acquired.is_none_or(serde_json::Map::is_empty), "{acquired:?}");
        assert_eq!(self.stored(), [""; 0]);
        let reserved = self.files("ipam/net");
        assert!(reserved.iter().all(|name| !name.starts_with("10.")), "{reserved:?}");
        assert_eq!(self.files("state/containers/cni"), [""; 0]);
        let records = self.files("state/containers");
        assert!(records.iter().all(|name| name == "cni"), "{records:?}");
    }
}

impl Drop for Cell {
    /// A test that failed may have left mounts, which would keep the directory.
    fn drop(&mut self) {
        for name in self.files("netns") {
            let _ = hostnet::netns::unpin(&self.path("netns").join(name));
        }
    }
}

pub fn request(container: &Process) -> Value {
    json!({
        "Pid": container.pid(),
        "Properties": {"policy_group_id": "app", "app_id": "app"},
        "netin": [{"host_port": 0, "container_port": 8080}],
        "netout_rules": [{"protocol": 1, "networks": [{"start": "8.8.8.8", "end": "8.8.8.8"}], "ports": [{"start": 53, "end": 53}]}],
    })
}

pub fn finish(mut child: Child, input: &Value) -> Ran {
    let mut stdin = child.stdin.take().unwrap();
    // `down` need not read its input.
    let _ = stdin.write_all(input.to_string().as_bytes());
    drop(stdin);
    Ran::new(child.wait_with_output().unwrap())
}

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A policy agent that answers as it is told, and remembers what it was asked.
pub struct Agent {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// Inside the cell, where the program looks for it; `answer` says what is answered to a path.
    pub fn start(cell: &Cell, answer: fn(&str) -> &'static str) -> Self {
        cell.tool("ip", "link set lo up");
        let listener = cell.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = request.strip_prefix("GET ").and_then(|rest| rest.split(' ').next());
                let path = path.expect("a GET is asked").to_owned();
                let answer = answer(&path);
                remembered.lock().unwrap().push(path);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}
