//! Pods as charts ask for them, in the containers tier: confinement, identity, volumes, and days that go wrong.
#![cfg(feature = "root-tests")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod stead;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stead::Stead;

/// A pod of one container that runs this shell text to its end.
fn once(name: &str, script: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "stead.dev/host", "command": ["/bin/sh", "-c", script]}]}})
}

/// The same with more fields of the pod's spec and of its container.
fn once_with(name: &str, script: &str, spec: Value, container: Value) -> Value {
    let mut pod = once(name, script);
    merge(&mut pod["spec"], spec);
    merge(&mut pod["spec"]["containers"][0], container);
    pod
}

fn merge(into: &mut Value, fields: Value) {
    let Value::Object(fields) = fields else {
        panic!("fields are an object");
    };
    for (name, value) in fields {
        into[name] = value;
    }
}

fn apply(stead: &Stead, objects: &[Value]) {
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    let said = stead.feed(&["apply", "-f", "-"], &text.join("\n---\n"));
    assert_eq!(said.code, 0, "{said:?}");
}

/// Waits until the pod is as asked, and gives it. Fails after a minute.
#[track_caller]
fn until(stead: &Stead, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let pod = stead.get(&format!("pod/{name}"));
        if is(&pod) {
            return pod;
        }
        assert!(
            Instant::now() < deadline,
            "{name} never became {what}: {:#}\n{}",
            pod["status"],
            stead.log()
        );
    }
}

/// Waits for the pod's end and gives its log.
#[track_caller]
fn log(stead: &Stead, name: &str) -> String {
    until(stead, name, "ended", |pod| {
        ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default())
    });
    stead.ok(&["logs", name])
}

/// Waits until the container waits for this reason, and gives the message.
#[track_caller]
fn waiting(stead: &Stead, name: &str, reason: &str) -> String {
    let state = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let pod = until(stead, name, reason, |pod| state(pod)["reason"] == reason);
    state(&pod)["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_pod_is_confined_as_it_asks() {
    let stead = Stead::in_tier("containers");
    stead.up();
    let profiles = stead.data_dir.join("node/seccomp/db");
    std::fs::create_dir_all(&profiles).unwrap();
    let refusing = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17}]});
    std::fs::write(profiles.join("no-folders.json"), refusing.to_string()).unwrap();
    let calls = "mkdir /tmp/x 2>&1 | grep -o exists; grep ^Seccomp: /proc/self/status | cut -f2";
    let profile = |fields: Value| json!({"securityContext": {"seccompProfile": fields}});
    let local = |name: &str| profile(json!({"type": "Localhost", "localhostProfile": name}));
    let default = || profile(json!({"type": "RuntimeDefault"}));
    let sysctl =
        |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
    let shared = json!({"shareProcessNamespace": true});
    let mut two = once_with(
        "shared",
        "until cat /proc/[0-9]*/comm | grep -q '^tail$'; do sleep 0.1; done; pkill -x tail; echo found",
        shared,
        json!({}),
    );
    let neighbour =
        json!({"name": "d", "image": "stead.dev/host", "command": ["tail", "-f", "/dev/null"]});
    two["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(neighbour);
    apply(
        &stead,
        &[
            once("plain", calls),
            once_with("default", calls, default(), json!({})),
            once_with(
                "override",
                calls,
                default(),
                profile(json!({"type": "Unconfined"})),
            ),
            once_with("local", calls, json!({}), local("db/no-folders.json")),
            once_with("missing", calls, json!({}), local("db/none.json")),
            once_with("unsafe", "true", sysctl("kernel.msgmax"), json!({})),
            once_with(
                "safe",
                "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
                sysctl("net.ipv4.ip_unprivileged_port_start"),
                json!({}),
            ),
            two,
        ],
    );
    for (name, want) in [
        ("plain", "0\n"),
        ("default", "2\n"),
        ("override", "0\n"),
        ("local", "exists\n2\n"),
        ("safe", "1\n"),
    ] {
        assert_eq!(log(&stead, name), want, "{name}");
    }
    let told = waiting(&stead, "missing", "CreateContainerError");
    assert!(
        told.starts_with("cannot load seccomp profile ") && told.contains("db/none.json"),
        "{told}"
    );
    let refused = until(&stead, "unsafe", "refused", |pod| {
        pod["status"]["phase"] == "Failed"
    });
    assert_eq!(refused["status"]["reason"], "SysctlForbidden");
    assert_eq!(
        refused["status"]["message"],
        "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted"
    );
    until(&stead, "shared", "ended", |pod| {
        pod["status"]["phase"] == "Failed"
    });
    assert_eq!(stead.ok(&["logs", "shared", "-c", "c"]), "found\n");
}

#[test]
fn a_pod_is_who_it_asks_to_be() {
    let stead = Stead::in_tier("containers");
    stead.up();
    let volume = |source: Value| json!([{"name": "v", "emptyDir": source}]);
    let mounted = || json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let groups = |more: Value| {
        let mut security = json!({"runAsUser": 1234, "runAsGroup": 5678, "fsGroup": 4321, "supplementalGroups": [999]});
        merge(&mut security, more);
        json!({"securityContext": security, "volumes": volume(json!({}))})
    };
    let names = json!({"hostname": "db", "subdomain": "all", "setHostnameAsFQDN": true,
        "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["old-db", "older-db"]}],
        "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.9.8.7"], "searches": ["a.example"], "options": [{"name": "ndots", "value": "3"}]}});
    let long = "n".repeat(63) + "-x";
    apply(
        &stead,
        &[
            once_with(
                "groups",
                "id -u; id -g; id -G; stat -c '%g %a' /v; touch /v/f; stat -c %g /v/f",
                groups(json!({})),
                mounted(),
            ),
            once_with(
                "strict",
                "id -G",
                groups(json!({"supplementalGroupsPolicy": "Strict"})),
                mounted(),
            ),
            once_with(
                "names",
                "hostname; grep -v '^#' /etc/hosts | grep -v localhost | tr '\\t' ' ' | cut -d' ' -f2-; cat /etc/resolv.conf",
                names,
                json!({}),
            ),
            once(&long, "hostname"),
            once_with(
                "machine",
                "hostname",
                json!({"hostNetwork": true, "subdomain": "x"}),
                json!({}),
            ),
        ],
    );
    assert_eq!(
        log(&stead, "groups"),
        "1234\n5678\n5678 999 4321\n4321 2777\n4321\n"
    );
    assert_eq!(log(&stead, "strict"), "5678 999 4321\n");
    assert_eq!(
        log(&stead, "names"),
        "db.all.default.svc.cluster.local\ndb.all.default.svc.cluster.local db\nold-db older-db\nnameserver 10.9.8.7\nsearch a.example\noptions ndots:3\n"
    );
    assert_eq!(log(&stead, &long), format!("{}\n", "n".repeat(63)));
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(log(&stead, "machine"), own);
}

/// A volume of the pod's own.
fn volumes(source: &Value) -> Value {
    json!({"volumes": [{"name": "v", "emptyDir": source}]})
}

/// The volume at /v, with more fields of its mount, and the pod's name in the environment.
fn mounted(more: Value) -> Value {
    let mut mount = json!({"name": "v", "mountPath": "/v"});
    merge(&mut mount, more);
    json!({"volumeMounts": [mount], "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]})
}

#[test]
fn a_volume_is_as_large_as_it_may_be_and_its_memory_is_given_back() {
    let stead = Stead::in_tier("containers");
    stead.up();
    let in_memory = volumes(&json!({"medium": "Memory", "sizeLimit": "1Mi"}));
    let fill = "stat -f -c %T /v; head -c 2000000 /dev/zero >/v/f 2>/dev/null || echo full; stat -c %s /v/f";
    let greed = "trap '' TERM; head -c 3000000 /dev/zero >/v/f; while :; do sleep 1; done";
    let small = volumes(&json!({"sizeLimit": "1Mi"}));
    apply(
        &stead,
        &[
            once_with("memory", fill, in_memory.clone(), mounted(json!({}))),
            once_with("stays", "exec sleep 1000", in_memory, mounted(json!({}))),
            once_with("greedy", greed, small, mounted(json!({}))),
        ],
    );
    assert_eq!(log(&stead, "memory"), "tmpfs\nfull\n1048576\n");
    let over = |pod: &Value| pod["status"]["phase"] == "Failed";
    let status = until(&stead, "greedy", "evicted", over)["status"].clone();
    assert_eq!(status["reason"], "Evicted");
    assert_eq!(
        status["message"],
        "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "
    );
    let mounts = || {
        let all = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let folder = stead.data_dir.canonicalize().unwrap();
        let folder = folder.to_str().unwrap();
        all.lines().filter(|line| line.contains(folder)).count()
    };
    let runs = |pod: &Value| pod["status"]["phase"] == "Running";
    until(&stead, "stays", "running", runs);
    assert_eq!(mounts(), 1, "of those that have ended none is left");
    stead.ok(&["delete", "pod/stays"]);
    stead.until(&["get", "pod/stays"], "not found");
    assert_eq!(mounts(), 0);
}

#[test]
fn a_volume_is_up_to_date_and_nothing_leads_out_of_it() {
    let stead = Stead::in_tier("containers");
    stead.up();
    let own = || volumes(&json!({}));
    let mut linked = once_with(
        "linked",
        "ls /v",
        own(),
        mounted(json!({"subPath": "out/etc"})),
    );
    linked["spec"]["initContainers"] = json!([{"name": "i", "image": "stead.dev/host", "command": ["ln", "-s", "/", "/v/out"],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    let claimed =
        json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    let device = json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]});
    let settings = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": text}});
    let configured = json!({"volumes": [{"name": "v", "configMap": {"name": "settings"}}]});
    let reads = "until grep -q new /v/mode; do sleep 0.05; done; echo first; until grep -q last /v/mode; do sleep 0.05; done; readlink /v/mode; ls /v";
    let propagates = mounted(json!({"mountPropagation": "HostToContainer"}));
    let named = mounted(json!({"subPathExpr": "of-$(POD)"}));
    apply(
        &stead,
        &[
            settings("old"),
            claim,
            once_with("expr", "echo $POD >/v/f; cat /v/f", own(), named),
            linked,
            once_with("propagates", "true", own(), propagates),
            once_with("block", "true", claimed, device),
            once_with("live", reads, configured, mounted(json!({}))),
        ],
    );
    assert_eq!(log(&stead, "expr"), "expr\n");
    for (name, want) in [
        (
            "linked",
            "failed to prepare subPath for volumeMount \"v\" of container \"c\"",
        ),
        (
            "propagates",
            "mount propagation HostToContainer of volume \"v\" is not possible; use None",
        ),
        (
            "block",
            "volume \"v\" is asked for as a block device; only file systems are possible",
        ),
    ] {
        assert_eq!(waiting(&stead, name, "CreateContainerConfigError"), want);
    }
    let runs = |pod: &Value| pod["status"]["phase"] == "Running";
    until(&stead, "live", "running", runs);
    apply(&stead, &[settings("new")]);
    stead.until(&["logs", "live"], "first");
    apply(&stead, &[settings("last")]);
    assert_eq!(log(&stead, "live"), "first\n..data/mode\nmode\n");
}

#[test]
fn a_pod_with_a_bad_day_says_so_and_can_be_deleted() {
    let stead = Stead::in_tier("containers");
    stead.up();
    let limits = json!({"resources": {"limits": {"memory": "24Mi"}}});
    let hangs = |probe: &str| json!({probe: {"exec": {"command": ["sh", "-c", "trap '' TERM; sleep 100777 & wait; wait"]}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}});
    let mut kept = once_with(
        "hung",
        "trap '' TERM; while :; do sleep 1; done",
        json!({"restartPolicy": "Always"}),
        hangs("livenessProbe"),
    );
    kept["spec"]["containers"][0]["livenessProbe"]["terminationGracePeriodSeconds"] = json!(1);
    apply(
        &stead,
        &[
            once_with("eats", "exec tail /dev/zero", json!({}), limits),
            once("bomb", "trap '' TERM; b() { b | b & b; }; b"),
            once_with(
                "unready",
                "exec sleep 1000",
                json!({}),
                hangs("readinessProbe"),
            ),
            kept,
            once("busy", "exec sleep 1000"),
        ],
    );
    let ended = until(&stead, "eats", "ended", |pod| {
        pod["status"]["phase"] == "Failed"
    });
    let state = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&state["reason"], &state["exitCode"]),
        (&json!("OOMKilled"), &json!(137))
    );
    stead.until(&["logs", "bomb"], "annot fork");
    let running = until(&stead, "unready", "running", |pod| {
        pod["status"]["phase"] == "Running"
    });
    assert_eq!(running["status"]["containerStatuses"][0]["ready"], false);
    let restarted = until(&stead, "hung", "restarted", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    });
    assert_eq!(
        restarted["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        137
    );
    until(&stead, "busy", "running", |pod| {
        pod["status"]["phase"] == "Running"
    });
    let mut endless = stead
        .command(&[
            "exec",
            "busy",
            "--",
            "/bin/sh",
            "-c",
            "trap '' TERM; echo in; while :; do sleep 1; done",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    std::io::Read::read_exact(endless.stdout.as_mut().unwrap(), &mut first).unwrap();
    let names = ["eats", "bomb", "unready", "hung", "busy"];
    for name in names {
        stead.ok(&["delete", &format!("pod/{name}")]);
    }
    for name in names {
        stead.until(&["get", &format!("pod/{name}")], "not found");
    }
    assert!(
        !endless.wait().unwrap().success(),
        "what was run inside ended with its pod"
    );
    let left = std::process::Command::new("pgrep")
        .args(["-f", "sleep 100777"])
        .output()
        .unwrap();
    assert!(left.stdout.is_empty(), "{left:?}");
}
