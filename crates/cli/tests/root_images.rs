//! Images in the containers tier, from a registry on loopback that wants a login: what a container sees of its layers.
#![cfg(feature = "root-tests")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

#[path = "../../image/tests/images/support/mod.rs"]
#[allow(
    dead_code,
    reason = "shared with the image crate's own tests, of which this uses a part"
)]
mod support;

mod stead;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use stead::Stead;
use support::archive::{Head, Tar};
use support::registry::{Auth, Fault, PASSWORD, Registry, USER};
use support::{Built, Packing, build};

/// Programs of this machine with the libraries that they need, as a layer.
fn programs(names: &[&str]) -> Tar {
    let mut files = BTreeSet::new();
    for name in names {
        let program = PathBuf::from("/bin").join(name);
        let said = Command::new("ldd").arg(&program).output().unwrap();
        files.insert(program);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let words = text.split_whitespace().filter(|word| word.starts_with('/'));
        files.extend(words.map(PathBuf::from));
    }
    let mut tar = Tar::new().folder("./", 0o755);
    for file in files {
        let mut head = Head::new(file.strip_prefix("/").unwrap().to_str().unwrap(), b'0');
        head.mode = 0o755;
        tar = tar.file_as(head, &std::fs::read(&file).unwrap());
    }
    tar
}

/// Three layers: programs and files, what the second takes away, what the third brings back.
fn image() -> Built {
    let base = programs(&["sh", "cat", "ls", "id", "sleep", "stat"])
        .file(
            "etc/passwd",
            b"root:x:0:0::/root:/bin/sh\nweb:x:1234:1235::/srv/web:/bin/sh\n",
        )
        .file("etc/group", b"web:x:1235:\n")
        .file("etc/gone", b"old")
        .folder("all/", 0o755)
        .file("all/old", b"old")
        .file("back", b"old");
    let mut mine = Head::new("srv/web/mine", b'0');
    (mine.mode, mine.uid, mine.gid) = (0o600, 1_234, 1_235);
    let mut su = Head::new("srv/web/su", b'0');
    su.mode = 0o4755;
    let middle = Tar::new()
        .file("etc/.wh.gone", b"")
        .file("all/.wh..wh..opq", b"")
        .file("all/new", b"new")
        .file(".wh.back", b"")
        .file_as(mine, b"mine")
        .file_as(su, b"")
        .hard_link("srv/web/also-mine", "srv/web/mine");
    let top = Tar::new().file("back", b"again");
    let config = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["exec /bin/sleep 3600"], "User": "web",
        "Env": ["PATH=/bin", "FROM=image"], "WorkingDir": "/srv/web", "StopSignal": "SIGKILL"});
    let layers = [
        (base.end(), Packing::Gzip),
        (middle.end(), Packing::Zstd),
        (top.end(), Packing::Plain),
    ];
    build(&config, &layers)
}

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  imagePullSecrets: [{{name: login}}]\n  \
         containers:\n  - {{name: c, image: '{image}'{more}}}\n"
    )
}

fn login(registry: &Registry) -> String {
    let file = json!({"auths": {registry.host(): {"username": USER, "password": PASSWORD}}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": file.to_string()}});
    secret.to_string()
}

fn apply(stead: &Stead, manifest: &str) {
    let said = stead.feed(&["apply", "-f", "-"], manifest);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_container_sees_its_images_layers_as_one_and_runs_as_the_image_says() {
    let registry = Registry::start();
    let image = image();
    registry.push("team/app", "1", &image);
    registry.protect(Auth::Bearer);
    let stead = Stead::in_tier("containers");
    stead.up();
    apply(&stead, &login(&registry));
    let name = registry.name("team/app:1");
    apply(&stead, &pod("app", &name, ""));
    stead.until(&["get", "pod", "app"], "Running");
    let inside = |text: &str| {
        let said = stead.run(&["exec", "app", "--", "/bin/sh", "-c", text]);
        format!("{}{}", said.out, said.err).trim().to_owned()
    };
    for (text, expected) in [
        ("id -u; id -g", "1234\n1235"),
        (
            "echo $FROM $HOME; ls -d $PWD/mine",
            "image /srv/web\n/srv/web/mine",
        ),
        ("cat mine also-mine", "minemine"),
        ("stat -c %h:%u:%a mine; stat -c %a su", "2:1234:600\n4755"),
        ("ls /all", "new"),
        ("cat /back", "again"),
        ("ls -d /etc/hosts /proc/self", "/etc/hosts\n/proc/self"),
    ] {
        assert_eq!(inside(text), expected, "{text}");
    }
    assert!(inside("cat /etc/gone").contains("No such file"));
    let status = stead.get("pod/app")["status"]["containerStatuses"][0].clone();
    assert_eq!(status["image"], json!(name));
    let id = format!("{}/team/app@{}", registry.host(), image.digest());
    assert_eq!(status["imageID"], json!(id));
    let said = stead.run(&["image", "rm", &name]);
    assert!(
        said.code == 1 && said.err.contains("a container uses"),
        "{said:?}"
    );
    stead.ok(&["image", "prune", "--all"]);
    assert_eq!(inside("cat /back"), "again", "what runs is not collected");
    stead.ok(&["delete", "pod", "app"]);
    stead.until(&["image", "prune", "--all"], "removed,");
    stead.until(&["image", "ls"], "NAME");
}

#[test]
fn an_image_that_cannot_be_had_says_why_and_is_asked_for_again() {
    let registry = Registry::start();
    registry.push("team/app", "1", &image());
    registry.fault("manifests/1", Fault::Status(500, String::new()), 5);
    let stead = Stead::in_tier("containers");
    stead.up();
    let name = registry.name("team/app:1");
    apply(&stead, &pod("app", &name, ""));
    stead.until(&["get", "pod", "app"], "ErrImagePull");
    // Ten seconds later it goes well.
    stead.until(&["get", "pod", "app"], "Running");
    apply(
        &stead,
        &pod(
            "never",
            &registry.name("team/other:1"),
            ", imagePullPolicy: Never",
        ),
    );
    stead.until(&["get", "pod", "never"], "ErrImageNeverPull");
    registry.fault("team/slow", Fault::Stall(0), 99);
    registry.push("team/slow", "1", &image());
    apply(&stead, &pod("slow", &registry.name("team/slow:1"), ""));
    while registry.asked("team/slow").is_empty() {
        std::thread::yield_now();
    }
    // A pull that hangs does not keep its pod.
    stead.ok(&["delete", "pod", "slow", "app", "never"]);
}
