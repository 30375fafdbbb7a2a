//! What the tests of images share: archives written byte by byte, images made of them, and a registry on loopback.

pub(crate) mod archive;
pub(crate) mod registry;

use std::io::Write as _;

use serde_json::{Value, json};
use stead_image::Digest;

/// An image in the making.
pub(crate) struct Built {
    /// Manifest.
    pub(crate) manifest: Vec<u8>,
    /// Config and layers, by digest.
    pub(crate) blobs: Vec<(Digest, Vec<u8>)>,
}

impl Built {
    /// The digest of its manifest.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The digest of its last layer as it is sent.
    pub(crate) fn last_layer(&self) -> Digest {
        self.blobs.last().expect("it has one").0.clone()
    }
}

/// How a layer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    fn media_type(self) -> &'static str {
        match self {
            Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
            Packing::Gzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    pub(crate) fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Packing::Plain => bytes.to_vec(),
            Packing::Gzip => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).expect("memory takes it");
                encoder.finish().expect("memory takes it")
            }
            Packing::Zstd => ruzstd::encoding::compress_to_vec(
                bytes,
                ruzstd::encoding::CompressionLevel::Fastest,
            ),
        }
    }
}

/// An image of these archives, with this `config`.
pub(crate) fn build(config: &Value, layers: &[(Vec<u8>, Packing)]) -> Built {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|(archive, _)| Digest::of(archive).to_string())
        .collect();
    build_saying(config, layers, &diff_ids)
}

/// As [`build`], but whatever diff ids it is told to have.
pub(crate) fn build_saying(
    config: &Value,
    layers: &[(Vec<u8>, Packing)],
    diff_ids: &[String],
) -> Built {
    let about = json!({"architecture": architecture(), "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let about = about.to_string().into_bytes();
    let mut blobs = vec![(Digest::of(&about), about)];
    let mut descriptors = Vec::new();
    for (archive, packing) in layers {
        let packed = packing.pack(archive);
        let digest = Digest::of(&packed);
        descriptors.push(
            json!({"mediaType": packing.media_type(), "digest": digest, "size": packed.len()}),
        );
        blobs.push((digest, packed));
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blobs[0].0, "size": blobs[0].1.len()},
        "layers": descriptors});
    Built {
        manifest: manifest.to_string().into_bytes(),
        blobs,
    }
}

/// An index with this image for this machine and one for a machine that nobody has.
pub(crate) fn index_of(image: &Built) -> Vec<u8> {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let other = Digest::of(b"other");
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {"mediaType": kind, "digest": other, "size": 5, "platform": {"os": "linux", "architecture": "vax"}},
        {"mediaType": kind, "digest": image.digest(), "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture()}}]})
    .to_string()
    .into_bytes()
}

/// This machine's architecture in the words of images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
