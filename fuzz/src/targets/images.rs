//! Images: manifests and configs, and layers unpacked into a folder that nothing may leave.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

use stead_image::document::{Pointed, parse_bare_config, parse_config, parse_pointed};
use stead_image::reference::ImageName;
use stead_image::unpack::{Policy, remove_tree, unpack};
use stead_image::{Limits, compression};

pub const WORDS: [&str; 14] = [
    "\"schemaVersion\":2",
    "\"mediaType\":",
    "\"config\":",
    "\"layers\":[",
    "\"manifests\":[",
    "\"digest\":\"sha256:",
    "\"size\":",
    "\"platform\":",
    "\"rootfs\":{\"diff_ids\":[",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "-1",
    "18446744073709551616",
];

pub const MANIFESTS: [&str; 4] = [
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":9}]}"#,
    r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,"platform":{"architecture":"amd64","os":"linux"}}]}"#,
    r#"{"architecture":"amd64","os":"linux","config":{"User":"1:2","Env":["A=b"],"Entrypoint":["/x"],"Cmd":["y"],"StopSignal":"SIGINT","Volumes":{"/v":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#,
    "registry.example:5000/a/b:tag@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];

/// A manifest, a config and a name of an image: whatever is taken keeps to the limits.
pub fn manifest(bytes: &[u8]) {
    let limits = Limits::default();
    if let Ok(Pointed::Manifest(manifest)) = parse_pointed(bytes, &limits) {
        assert!(
            manifest.layers.len() <= limits.layers,
            "more layers than are taken"
        );
        let _ = parse_config(bytes, &manifest);
    }
    let _ = parse_bare_config(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(name) = ImageName::parse(text)
    {
        assert!(
            ImageName::parse(&name.to_string()).is_ok_and(|again| again == name),
            "{name} reads as another"
        );
    }
}

/// Bytes of a layer that are unpacked at most.
const MOST: u64 = 1 << 20;

/// A layer: the first byte says whether the sums of its headers are made right, for chance does not. Whatever it holds,
/// nothing beside its folder is made or changed.
pub fn layer(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if mode % 2 == 0 {
        bytes.chunks_exact_mut(512).for_each(make_sum);
    }
    let folder = room().join("layer");
    fs::create_dir(&folder).expect("room for a layer");
    let policy = Policy {
        owners: false,
        devices: false,
    };
    let limits = Limits {
        entries: 64,
        extension_bytes: 1 << 16,
        ..Limits::default()
    };
    if let Ok(archive) = compression::decompress(bytes.as_slice()) {
        let _ = unpack(archive.take(MOST), &folder, policy, &limits, 64);
    }
    remove_tree(&folder).expect("a layer can be removed");
    let beside: Vec<String> = fs::read_dir(room())
        .expect("the room")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(beside, ["canary"], "something was made beside the layer");
    assert_eq!(
        fs::read(room().join("canary")).expect("the canary"),
        b"alive",
        "a file beside the layer was changed"
    );
}

/// A folder of this process alone, with a file that nobody may touch.
fn room() -> &'static PathBuf {
    static ROOM: OnceLock<PathBuf> = OnceLock::new();
    ROOM.get_or_init(|| {
        let room = std::env::temp_dir().join(format!("stead-fuzz-{}", std::process::id()));
        fs::create_dir(&room).expect("a temporary folder");
        fs::write(room.join("canary"), "alive").expect("a file");
        room
    })
}

/// Removes what the targets made for themselves.
pub fn leave() {
    let _ =
        fs::remove_dir_all(std::env::temp_dir().join(format!("stead-fuzz-{}", std::process::id())));
}

fn make_sum(block: &mut [u8]) {
    // Blocks without a type of archive are content.
    if &block[257..262] != b"ustar" {
        return;
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// One entry: name, type, link and content.
fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000755\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[136..148].copy_from_slice(b"00000000001\0");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    make_sum(&mut block);
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

pub fn layers() -> Vec<Vec<u8>> {
    let plain = [
        vec![0],
        entry("d/", b'5', "", b""),
        entry("d/file", b'0', "", b"content"),
        entry("d/link", b'2', "../../canary", b""),
        entry("d/hard", b'1', "d/file", b""),
        entry("d/.wh.gone", b'0', "", b""),
        vec![0; 1024],
    ];
    let escaping = [
        vec![0],
        entry("out", b'2', "..", b""),
        entry("out/canary", b'0', "", b"dead"),
        entry("../canary", b'0', "", b"dead"),
        vec![0; 1024],
    ];
    let extended = [
        vec![0],
        entry(
            "x",
            b'x',
            "",
            b"17 path=a/long/er\n29 SCHILY.xattr.user.a=value\n",
        ),
        entry("short", b'0', "", b"1"),
        entry("././@LongLink", b'L', "", b"name\0"),
        entry("other", b'0', "", b"2"),
        vec![0; 1024],
    ];
    [plain.concat(), escaping.concat(), extended.concat()].into()
}
