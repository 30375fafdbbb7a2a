//! Pulling from a registry on loopback: good days, and each bad one.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::support::archive::{Head, Tar};
use crate::support::registry::{Auth, Fault, PASSWORD, Registry, USER};
use crate::support::{Built, Packing, build, build_saying, index_of};
use serde_json::json;
use stead_image::registry::credentials::Credentials;
use stead_image::registry::mirrors::Registries;
use stead_image::registry::{Access, Patience, Progress, PullError, Puller};
use stead_image::{Digest, Image, ImageName, Limits, Store};
use tempfile::TempDir;

/// A machine with an empty store and little patience.
struct Machine {
    folder: TempDir,
    puller: Puller,
    access: Access,
}

impl Machine {
    fn new() -> Machine {
        Machine::with(Limits::default())
    }

    fn with(limits: Limits) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap().with_limits(limits);
        let patience = Patience {
            answer: Duration::from_secs(20),
            stall: Duration::from_millis(400),
            attempts: 3,
            pause: Duration::from_millis(1),
            retry_after_most: Duration::from_secs(5),
        };
        Machine {
            folder,
            puller: Puller::new(store, patience),
            access: Access::default(),
        }
    }

    fn login(mut self, registry: &Registry, password: &str) -> Machine {
        let file = json!({"auths": {registry.host(): {"username": USER, "password": password}}});
        self.access.credentials = Credentials::parse(file.to_string().as_bytes()).unwrap();
        self
    }

    async fn pull(&self, name: &str) -> Result<Image, PullError> {
        let name = ImageName::parse(name).unwrap();
        self.puller
            .pull(&name, &self.access, &Progress::default())
            .await
    }

    async fn refused(&self, name: &str) -> String {
        self.pull(name)
            .await
            .expect_err("it should be refused")
            .to_string()
    }

    /// Files of the store that belong to nothing that is whole.
    fn left_over(&self) -> usize {
        ["work", "layers", "names"]
            .iter()
            .map(|part| fs::read_dir(self.folder.path().join(part)).unwrap().count())
            .sum()
    }
}

fn small() -> Built {
    let layer = Tar::new()
        .folder("etc/", 0o755)
        .file("etc/name", b"small")
        .end();
    build(&json!({"Cmd": ["/run"]}), &[(layer, Packing::Gzip)])
}

/// A layer that does not compress, so that it can be cut anywhere.
fn large() -> Built {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    })
    .take(300_000)
    .collect();
    build(
        &json!({}),
        &[(Tar::new().file("noise", &noise).end(), Packing::Plain)],
    )
}

fn pushed(image: &Built) -> (Registry, String) {
    let registry = Registry::start();
    registry.push("a/b", "1", image);
    let name = registry.name("a/b:1");
    (registry, name)
}

#[tokio::test]
async fn layers_of_every_packing_come_in_and_the_same_is_not_fetched_twice() {
    let layers = [Packing::Plain, Packing::Gzip, Packing::Zstd].map(|packing| {
        (
            Tar::new().file(&format!("{packing:?}"), b"here").end(),
            packing,
        )
    });
    let image = build(&json!({"Env": ["A=1"], "User": "7"}), &layers);
    let (registry, name) = pushed(&image);
    registry.put_manifest("a/b", "many", &index_of(&image));
    let machine = Machine::new();
    let pulled = machine.pull(&name).await.unwrap();
    assert_eq!(pulled.layers.len(), 3);
    for (folder, file) in pulled.layers.iter().zip(["Plain", "Gzip", "Zstd"]) {
        assert_eq!(fs::read(folder.join(file)).unwrap(), b"here");
    }
    assert_eq!(pulled.config.user, "7");
    assert_eq!(
        pulled.image_id(),
        format!("{}/a/b@{}", registry.host(), image.digest())
    );
    let again = machine.pull(&registry.name("a/b:many")).await.unwrap();
    assert_eq!(again.layers, pulled.layers);
    assert_eq!(
        again.digest,
        Digest::of(&index_of(&image)),
        "an index is what the name points at"
    );
    assert_eq!(
        registry.asked("/blobs/").len(),
        4,
        "a config and three layers, once each"
    );
    let by_digest = format!("{}@{}", registry.name("a/b"), image.digest());
    let found = machine
        .puller
        .store()
        .find(&by_digest.parse().unwrap())
        .unwrap();
    assert_eq!(
        found.map(|image| image.id),
        Some(pulled.id),
        "what came by its tag is there by its digest"
    );
}

#[tokio::test]
async fn a_download_that_is_cut_off_goes_on_where_it_stopped() {
    let image = large();
    let (registry, name) = pushed(&image);
    let layer = image.last_layer().to_string();
    registry.fault(&layer, Fault::Cut(100_000), 1);
    registry.fault(&layer, Fault::Stall(50_000), 1);
    Machine::new().pull(&name).await.unwrap();
    let ranges: Vec<Option<String>> = registry
        .asked(&layer)
        .into_iter()
        .map(|asked| asked.headers.get("range").cloned())
        .collect();
    let range = |from: &str| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, range("100000"), range("150000")]);
}

#[tokio::test]
async fn a_registry_that_knows_no_parts_is_asked_from_the_start() {
    let image = large();
    let (registry, name) = pushed(&image);
    registry.send_whole_only();
    registry.fault(image.last_layer().to_string(), Fault::Cut(100_000), 1);
    let machine = Machine::new();
    let pulled = machine.pull(&name).await.unwrap();
    assert_eq!(
        fs::metadata(pulled.layers[0].join("noise")).unwrap().len(),
        300_000
    );
}

#[tokio::test]
async fn what_an_earlier_pull_left_is_used_and_checked() {
    let image = large();
    let (registry, name) = pushed(&image);
    let layer = image.last_layer();
    let machine = Machine::new();
    let part = machine
        .folder
        .path()
        .join("downloads")
        .join(layer.file_name());
    fs::write(&part, &image.blobs[1].1[..123_456]).unwrap();
    machine.pull(&name).await.unwrap();
    let asked = registry.asked(&layer.to_string());
    assert_eq!(asked[0].headers["range"], "bytes=123456-");
    assert!(!part.exists());
    let other = Machine::new();
    let part = other
        .folder
        .path()
        .join("downloads")
        .join(layer.file_name());
    fs::write(&part, vec![7; 1_000]).unwrap();
    assert!(
        other
            .refused(&name)
            .await
            .contains("not what its digest says")
    );
    other
        .pull(&name)
        .await
        .expect("what was wrong is not taken up again");
}

#[tokio::test]
async fn a_truncated_layer_is_asked_for_again_and_then_given_up() {
    let image = large();
    let (registry, name) = pushed(&image);
    registry.fault(image.last_layer().to_string(), Fault::Cut(0), 99);
    let machine = Machine::new();
    let why = machine.refused(&name).await;
    assert!(
        why.contains("stopped answering") || why.contains("could not reach"),
        "{why}"
    );
    assert_eq!(registry.asked(&image.last_layer().to_string()).len(), 3);
    assert_eq!(machine.left_over(), 0);
}

#[tokio::test]
async fn a_layer_that_lies_about_its_size_or_digest_is_refused() {
    let image = large();
    let bytes = &image.blobs[1].1;
    let longer = [bytes.as_slice(), b"more"].concat();
    let mut other = bytes.clone();
    other[1_000] ^= 1;
    for (fault, expected) in [
        (Fault::Instead(longer.clone()), "300004 bytes"),
        (Fault::Unsized(longer), "bytes where"),
        (Fault::Instead(bytes[..99].to_vec()), "has 99 bytes"),
        (Fault::Instead(other), "not what its digest says"),
    ] {
        let (registry, name) = pushed(&image);
        registry.fault(image.last_layer().to_string(), fault, 1);
        let machine = Machine::new();
        let why = machine.refused(&name).await;
        let expected = expected.replace("300004", &(bytes.len() + 4).to_string());
        assert!(why.contains(&expected), "{expected}: {why}");
        assert_eq!(machine.left_over(), 0);
        machine
            .pull(&name)
            .await
            .expect("the next pull starts anew");
    }
}

#[tokio::test]
async fn a_manifest_or_config_that_is_not_what_was_asked_for_is_refused() {
    let image = small();
    let (registry, name) = pushed(&image);
    let digest = image.digest().to_string();
    registry.fault(
        format!("manifests/{digest}"),
        Fault::Instead(b"{}".to_vec()),
        1,
    );
    let machine = Machine::new();
    let by_digest = format!("{}@{digest}", registry.name("a/b"));
    assert!(machine.refused(&by_digest).await.contains("the manifest"));
    let config = image.blobs[0].0.to_string();
    registry.fault(
        &config,
        Fault::Instead(image.blobs[0].1.to_ascii_uppercase()),
        1,
    );
    assert!(machine.refused(&name).await.contains("the config"));
    registry.fault("manifests/1", Fault::Unsized(vec![b' '; 5 << 20]), 1);
    assert!(machine.refused(&name).await.contains("larger than"));
    assert_eq!(machine.left_over(), 0);
}

#[tokio::test]
async fn a_layer_that_unpacks_to_something_else_is_refused() {
    let layer = Tar::new().file("a", b"b").end();
    let wrong = [Digest::of(b"something else").to_string()];
    let image = build_saying(&json!({}), &[(layer, Packing::Gzip)], &wrong);
    let (_registry, name) = pushed(&image);
    let machine = Machine::new();
    assert!(machine.refused(&name).await.contains("but the config says"));
    assert_eq!(machine.left_over(), 0);
}

#[tokio::test]
async fn a_layer_that_leads_out_of_its_folder_is_refused_and_leaves_nothing() {
    let layer = Tar::new().file("../../escaped", b"out").end();
    let (_registry, name) = pushed(&build(&json!({}), &[(layer, Packing::Gzip)]));
    let machine = Machine::new();
    assert!(
        machine
            .refused(&name)
            .await
            .contains("leads out of its folder")
    );
    assert_eq!(machine.left_over(), 0);
    assert!(!machine.folder.path().join("escaped").exists());
}

#[tokio::test]
async fn bombs_are_refused() {
    let limits = Limits {
        ratio: 10,
        ratio_from_bytes: 1 << 20,
        entries_free: 100,
        bytes_per_entry: 1_000,
        ..Limits::default()
    };
    let zeros = Tar::new().file("zeros", &vec![0; 4 << 20]).end();
    let many = (0..200)
        .fold(Tar::new(), |tar, n| tar.file(&n.to_string(), b""))
        .end();
    for (layer, expected) in [(zeros, "as a bomb"), (many, "more than")] {
        let (_registry, name) = pushed(&build(&json!({}), &[(layer, Packing::Gzip)]));
        let machine = Machine::with(limits.clone());
        let why = machine.refused(&name).await;
        assert!(why.contains(expected), "{why}");
        assert_eq!(machine.left_over(), 0);
    }
}

#[tokio::test]
async fn tokens_and_passwords_are_given_when_asked_for() {
    for auth in [Auth::Basic, Auth::Bearer] {
        let (registry, name) = pushed(&small());
        registry.protect(auth.clone());
        let why = Machine::new().refused(&name).await;
        assert!(
            why.contains("401") && why.contains("imagePullSecrets"),
            "{auth:?}: {why}"
        );
        let why = Machine::new()
            .login(&registry, "wrong")
            .refused(&name)
            .await;
        assert!(why.contains("were not taken"), "{auth:?}: {why}");
        Machine::new()
            .login(&registry, PASSWORD)
            .pull(&name)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn another_host_never_sees_what_is_for_the_first() {
    let image = small();
    let (registry, name) = pushed(&image);
    registry.protect(Auth::Basic);
    let (elsewhere, _) = pushed(&image);
    let path = format!("/v2/a/b/blobs/{}", image.last_layer());
    let to = format!("http://{}{path}", elsewhere.host());
    registry.fault(path, Fault::Redirect(to), 1);
    Machine::new()
        .login(&registry, PASSWORD)
        .pull(&name)
        .await
        .unwrap();
    let asked = elsewhere.asked("/blobs/");
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let (registry, name) = pushed(&small());
    registry.fault(
        "manifests",
        Fault::Redirect("/v2/a/b/manifests/1".to_owned()),
        99,
    );
    let why = Machine::new().refused(&name).await;
    assert!(why.contains("in a circle"), "{why}");
    assert!(registry.asked("manifests").len() < 10);
}

#[tokio::test]
async fn a_registry_that_has_enough_is_waited_for_as_it_asks() {
    let (registry, name) = pushed(&small());
    registry.fault(
        "manifests",
        Fault::Status(429, "Retry-After: 1".to_owned()),
        1,
    );
    let began = std::time::Instant::now();
    Machine::new().pull(&name).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    registry.fault(
        "manifests",
        Fault::Status(429, "Retry-After: 3600".to_owned()),
        1,
    );
    let why = Machine::new().refused(&name).await;
    assert!(why.contains("429") && why.contains("3600 s"), "{why}");
}

#[tokio::test]
async fn a_registry_that_fails_is_asked_again_and_one_that_has_nothing_is_not() {
    let (registry, name) = pushed(&small());
    registry.fault("manifests", Fault::Status(500, String::new()), 2);
    Machine::new().pull(&name).await.unwrap();
    registry.fault("b/manifests", Fault::Status(503, String::new()), 99);
    let why = Machine::new().refused(&name).await;
    assert!(why.contains("503"), "{why}");
    let why = Machine::new().refused(&registry.name("a/none:1")).await;
    assert!(why.contains("404"), "{why}");
    assert_eq!(registry.asked("a/none").len(), 1);
}

#[tokio::test]
async fn a_registry_that_stalls_is_given_up() {
    let (registry, name) = pushed(&small());
    registry.fault("manifests", Fault::Stall(10), 99);
    let why = Machine::new().refused(&name).await;
    assert!(why.contains("nothing more came"), "{why}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_after_it() {
    let image = small();
    let (registry, name) = pushed(&image);
    let (mirror, _) = pushed(&image);
    let mut machine = Machine::new();
    let mut registries = Registries::default();
    registries
        .add_mirror(&format!("{}=http://{}", registry.host(), mirror.host()))
        .unwrap();
    machine.access.registries = registries;
    machine.pull(&name).await.unwrap();
    assert_eq!(registry.asked("").len(), 0);
    mirror.fault("manifests", Fault::Status(500, String::new()), 99);
    machine.pull(&name).await.unwrap();
    assert_eq!(registry.asked("manifests").len(), 1);
}

#[tokio::test]
async fn the_same_layer_pulled_by_many_at_once_comes_once() {
    let image = large();
    let registry = Registry::start();
    let names: Vec<String> = (0..6)
        .map(|n| {
            registry.push(&format!("a/{n}"), "1", &image);
            registry.name(&format!("a/{n}:1"))
        })
        .collect();
    let machine = Machine::new();
    let pulls = names.iter().map(|name| machine.pull(name));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(machine.puller.store().list().unwrap().len(), 6);
    assert_eq!(
        fs::read_dir(machine.folder.path().join("layers"))
            .unwrap()
            .count(),
        1
    );
    assert_eq!(
        fs::read_dir(machine.folder.path().join("downloads"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn what_nobody_uses_is_removed_and_what_runs_stays() {
    let base = Tar::new().file("base", b"shared").end();
    let image = |name: &str| {
        let own = Tar::new().file(name, b"own").end();
        build(
            &json!({"Cmd": [name]}),
            &[(base.clone(), Packing::Gzip), (own, Packing::Gzip)],
        )
    };
    let registry = Registry::start();
    registry.push("one", "1", &image("one"));
    registry.push("two", "1", &image("two"));
    let machine = Machine::new();
    let one = machine.pull(&registry.name("one:1")).await.unwrap();
    let two = machine.pull(&registry.name("two:1")).await.unwrap();
    let store = machine.puller.store();
    let used: BTreeSet<_> = one.layers.iter().cloned().collect();
    let removed = store.prune(true, || Ok(used.clone())).unwrap();
    assert!(removed.names.is_empty(), "both have a layer that is in use");
    let only: BTreeSet<_> = [one.layers[1].clone()].into();
    let removed = store.prune(true, || Ok(only.clone())).unwrap();
    assert_eq!(removed.names, [two.name]);
    assert_eq!(removed.layers.len(), 1);
    assert!(one.layers.iter().all(|layer| layer.exists()) && !two.layers[1].exists());
    store.prune(true, || Ok(BTreeSet::new())).unwrap();
    assert_eq!(machine.left_over(), 0);
}

#[tokio::test]
async fn a_crash_leaves_nothing_half_and_the_next_start_sweeps() {
    let (_registry, name) = pushed(&small());
    let machine = Machine::new();
    machine.pull(&name).await.unwrap();
    let half = machine.folder.path().join("work/1-1/tree/a");
    fs::create_dir_all(&half).unwrap();
    let held = machine.puller.store().hold().unwrap();
    Store::open(machine.folder.path()).unwrap();
    assert!(half.exists(), "somebody is at work");
    drop(held);
    let store = Store::open(machine.folder.path()).unwrap();
    assert!(!half.exists());
    assert_eq!(store.list().unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_store_says_so_and_a_pull_mends_it() {
    let image = small();
    let (_registry, name) = pushed(&image);
    let machine = Machine::new();
    machine.pull(&name).await.unwrap();
    let config = machine
        .folder
        .path()
        .join("documents")
        .join(image.blobs[0].0.file_name());
    fs::write(&config, b"{}").unwrap();
    let parsed: ImageName = name.parse().unwrap();
    let error = machine
        .puller
        .store()
        .find(&parsed)
        .expect_err("it is damaged");
    assert!(error.to_string().contains("damaged"));
    machine.pull(&name).await.unwrap();
    assert!(machine.puller.store().find(&parsed).unwrap().is_some());
}

#[tokio::test]
async fn devices_of_the_overlay_itself_are_refused() {
    let layer = Tar::new().raw(&Head::new("dev/hole", b'3'), b"").end();
    let (_registry, name) = pushed(&build(&json!({}), &[(layer, Packing::Plain)]));
    assert!(Machine::new().refused(&name).await.contains("0:0"));
}
