//! A Stead under test: the built binary on a data folder of its own, stopped when dropped.

// Each test file uses what it needs of this.
#![allow(
    dead_code,
    reason = "every test file compiles this module for itself and uses a part of it"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

/// A data folder and the commands on it.
pub(crate) struct Stead {
    /// Removed when the test is over.
    folder: Option<tempfile::TempDir>,
    pub(crate) data_dir: PathBuf,
    tier: &'static str,
}

impl Stead {
    /// In the tier that every machine has.
    pub(crate) fn new() -> Stead {
        Stead::in_tier("processes")
    }

    pub(crate) fn in_tier(tier: &'static str) -> Stead {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        Stead {
            folder: Some(folder),
            data_dir,
            tier,
        }
    }

    /// On a folder that the test chose and keeps.
    pub(crate) fn on(data_dir: &Path) -> Stead {
        Stead {
            folder: None,
            data_dir: data_dir.to_owned(),
            tier: "processes",
        }
    }

    /// Runs `stead ARGS` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    /// Runs it and demands success.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(
            said.code, 0,
            "stead {args:?} said: {}{}",
            said.out, said.err
        );
        said.out
    }

    /// Runs it with a manifest on standard input.
    pub(crate) fn feed(&self, args: &[&str], manifest: &str) -> Said {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Starts the daemon in the background.
    pub(crate) fn up(&self) -> &Stead {
        self.ok(&["up", "-d", "--listen", "127.0.0.1:0", "--tier", self.tier]);
        self
    }

    /// Applies a manifest and waits until its sets are ready.
    pub(crate) fn up_ready(&self, manifest: &str) {
        let said = self.feed(&["up", "--wait", "--timeout", "60s", "-f", "-"], manifest);
        assert_eq!(said.code, 0, "{}{}\n{}", said.out, said.err, self.log());
    }

    /// An object as JSON.
    pub(crate) fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.ok(&["get", what, "-o", "json"])).unwrap()
    }

    /// Runs a command again until what it says holds `text`. Ends by failing after a minute.
    pub(crate) fn until(&self, args: &[&str], text: &str) -> Said {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let said = self.run(args);
            if said.out.contains(text) || said.err.contains(text) {
                return said;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "stead {args:?} never said {text:?}: {said:?}\n{}",
                self.log()
            );
        }
    }

    /// The daemon's process.
    pub(crate) fn daemon(&self) -> u32 {
        let about = std::fs::read(self.data_dir.join("daemon.json")).unwrap();
        let about: Value = serde_json::from_slice(&about).unwrap();
        u32::try_from(about["pid"].as_u64().unwrap()).unwrap()
    }

    /// What the daemon said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("daemon.log")).unwrap_or_default()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(args)
            .env_remove("STEAD_DATA_DIR")
            .env_remove("STEAD_TIER");
        command
    }
}

impl Drop for Stead {
    fn drop(&mut self) {
        let said = self.run(&["down", "--timeout", "60s"]);
        // A test that never started one has none to stop; a failing test tells its own reason.
        if !std::thread::panicking() {
            assert!(
                [0, 3].contains(&said.code),
                "down: {said:?}\n{}",
                self.log()
            );
        }
    }
}

/// A set of `replicas` whose one container runs this shell text; it is ready when `ready` is in its place.
pub(crate) fn set(name: &str, replicas: u32, program: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  serviceName: {name}
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: stead.dev/host
          command: ["/bin/sh", "-c", {program:?}]
          env: [{{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
          volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
    - metadata: {{name: data}}
      spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
"#
    )
}

/// A program that runs until it is told to stop, and reads its mount's place as every tier can.
pub(crate) const STAYS: &str =
    "cd ${STEAD_MOUNT_DATA:-/data}; trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";
