//! Manifests, indexes and configs: what they say, after it was checked to be sayable.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::limits::Limits;

/// Media types of manifests and indexes that are asked for and understood: OCI and Docker's schema 2.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Why a document is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// No JSON, or not of this shape.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// `manifest`, `index`, `config`.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Docker's first manifests, out of use since 2016, carry no digests of layers.
    #[error(
        "the manifest is of schema 1, which no digest protects; push the image again with a tool of today"
    )]
    Schema1,
    /// Neither an image nor an index of images.
    #[error("{0:?} is no image: it is an artifact of another kind")]
    NoImage(String),
    /// More layers than are taken.
    #[error("the image has {has} layers; at most {most} are taken")]
    TooManyLayers {
        /// How many there are.
        has: usize,
        /// How many are taken.
        most: usize,
    },
    /// A layer larger than is taken.
    #[error("layer {layer} has {has} bytes; at most {most} are taken")]
    LayerTooLarge {
        /// Its digest.
        layer: Digest,
        /// Its size.
        has: u64,
        /// What is taken.
        most: u64,
    },
    /// A layer in a form that we do not unpack.
    #[error("layer {layer} is of type {kind:?}, which cannot be unpacked here")]
    LayerType {
        /// Its digest.
        layer: Digest,
        /// Its media type.
        kind: String,
    },
    /// Config and manifest tell of different images.
    #[error("the manifest has {layers} layers and the config {diffs}")]
    LayersDiffer {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diffs: usize,
    },
    /// The index has nothing for this machine.
    #[error("no image for {wanted} in the index; it has {offered}")]
    Platform {
        /// This machine.
        wanted: Platform,
        /// What there is.
        offered: String,
    },
}

/// A machine that an image is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v8`, ...; empty means the usual one.
    pub variant: String,
}

impl Platform {
    /// This machine.
    pub fn here() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// How well an image for `other` runs here: the smaller, the better; `None`: not at all.
    fn distance(&self, other: &Platform) -> Option<u8> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        match (self.variant.as_str(), other.variant.as_str()) {
            (ours, theirs) if ours == theirs => Some(0),
            (_, "") | ("", "v1") => Some(1),
            // A later kind of the architecture runs what was made for an earlier one.
            (ours, theirs) if !ours.is_empty() && theirs < ours => Some(2),
            (_, _) => None,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            os,
            architecture,
            variant,
        } = self;
        write!(f, "{os}/{architecture}")?;
        if !variant.is_empty() {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

/// What a document says of another: where its bytes are and what they must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type, as far as it was given.
    pub media_type: String,
    /// What its bytes hash to.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Notes of whoever made the document.
    pub annotations: BTreeMap<String, String>,
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// It is the archive itself.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// An image's manifest: its config and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<(Descriptor, Compression)>,
}

/// What a reference can point at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pointed {
    /// One image.
    Manifest(Manifest),
    /// One image for each of several machines.
    Index(Vec<(Descriptor, Option<Platform>)>),
}

/// The part of an image's config that a container is started from, and the layers' own digests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Variables, in order.
    pub env: Vec<(String, String)>,
    /// Working folder; empty is `/`.
    pub working_dir: String,
    /// `name`, `uid`, `name:group` or `uid:gid`; empty is root.
    pub user: String,
    /// The signal that asks the program to end: a name or a number; empty is SIGTERM.
    pub stop_signal: String,
    /// Folders that hold data of their own.
    pub volumes: Vec<String>,
    /// The digests of the layers' archives before compression, lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    config: Option<RawRun>,
    rootfs: Option<RawRootFs>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct RawRootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

impl From<RawDescriptor> for Descriptor {
    fn from(raw: RawDescriptor) -> Descriptor {
        Descriptor {
            media_type: raw.media_type,
            digest: raw.digest,
            size: raw.size,
            annotations: raw.annotations.unwrap_or_default(),
        }
    }
}

/// Reads what a reference points at.
///
/// # Errors
/// Says what it is instead of an image or an index.
pub fn parse_pointed(bytes: &[u8], limits: &Limits) -> Result<Pointed, DocumentError> {
    let raw: RawManifest = parse("manifest", bytes)?;
    if raw.schema_version == 1 {
        return Err(DocumentError::Schema1);
    }
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) => {
            Ok(Pointed::Index(manifests.into_iter().map(indexed).collect()))
        }
        (None, Some(config), Some(layers)) => {
            let kind = raw.artifact_type.unwrap_or_default();
            let config = Descriptor::from(config);
            if !is_config(&config.media_type) {
                let kind = if kind.is_empty() {
                    config.media_type
                } else {
                    kind
                };
                return Err(DocumentError::NoImage(kind));
            }
            manifest(config, layers, limits).map(Pointed::Manifest)
        }
        // A document that is both would be read as one thing here and as another elsewhere.
        (_, _, _) => Err(DocumentError::Malformed {
            what: "manifest",
            why: format!(
                "it is neither an image nor an index of images (media type {:?})",
                raw.media_type
            ),
        }),
    }
}

/// Reads a config, and checks that it tells of the layers of this manifest.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_config(bytes: &[u8], manifest: &Manifest) -> Result<ImageConfig, DocumentError> {
    let config = parse_bare_config(bytes)?;
    if config.diff_ids.len() != manifest.layers.len() {
        return Err(DocumentError::LayersDiffer {
            layers: manifest.layers.len(),
            diffs: config.diff_ids.len(),
        });
    }
    Ok(config)
}

/// Reads a config alone.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_bare_config(bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
    let raw: RawConfig = parse("config", bytes)?;
    let run = raw.config.unwrap_or_default();
    let variable = |text: String| {
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(ImageConfig {
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.into_iter().flatten().map(variable).collect(),
        working_dir: run.working_dir.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        stop_signal: run.stop_signal.unwrap_or_default(),
        volumes: run
            .volumes
            .into_iter()
            .flatten()
            .map(|(path, _)| path)
            .collect(),
        diff_ids: raw.rootfs.map(|root| root.diff_ids).unwrap_or_default(),
    })
}

/// The one of an index that runs best on a machine.
///
/// # Errors
/// Says what there is instead.
pub fn choose<'a>(
    index: &'a [(Descriptor, Option<Platform>)],
    here: &Platform,
) -> Result<&'a Descriptor, DocumentError> {
    // upstream: an entry without a platform is taken only when none says that it is for this machine.
    let distance = |platform: &Option<Platform>| match platform {
        Some(platform) => here.distance(platform),
        None => Some(u8::MAX),
    };
    index
        .iter()
        .filter_map(|(descriptor, platform)| Some((distance(platform)?, descriptor)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, descriptor)| descriptor)
        .ok_or_else(|| DocumentError::Platform {
            wanted: here.clone(),
            offered: offered(index),
        })
}

fn offered(index: &[(Descriptor, Option<Platform>)]) -> String {
    let names: Vec<String> = index
        .iter()
        .filter_map(|(_, platform)| platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .take(20)
        .map(ToString::to_string)
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn indexed(raw: RawDescriptor) -> (Descriptor, Option<Platform>) {
    let platform = raw.platform.as_ref().map(|platform| Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
    });
    (raw.into(), platform)
}

fn manifest(
    config: Descriptor,
    layers: Vec<RawDescriptor>,
    limits: &Limits,
) -> Result<Manifest, DocumentError> {
    if layers.len() > limits.layers {
        return Err(DocumentError::TooManyLayers {
            has: layers.len(),
            most: limits.layers,
        });
    }
    let layers = layers
        .into_iter()
        .map(|raw| layer(raw.into(), limits))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Manifest { config, layers })
}

fn layer(layer: Descriptor, limits: &Limits) -> Result<(Descriptor, Compression), DocumentError> {
    if layer.size > limits.layer_bytes {
        return Err(DocumentError::LayerTooLarge {
            layer: layer.digest,
            has: layer.size,
            most: limits.layer_bytes,
        });
    }
    let compression = match layer.media_type.as_str() {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        _ => {
            return Err(DocumentError::LayerType {
                layer: layer.digest,
                kind: layer.media_type,
            });
        }
    };
    Ok((layer, compression))
}

/// Very old tools give no type at all.
fn is_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
            | "application/octet-stream"
            | ""
    )
}

fn parse<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|error| DocumentError::Malformed {
        what,
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OTHER: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn pointed(document: &serde_json::Value) -> Result<Pointed, DocumentError> {
        parse_pointed(document.to_string().as_bytes(), &Limits::default())
    }

    fn image(layer_type: &str, layers: usize) -> serde_json::Value {
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": OTHER, "size": 2});
        let layer = json!({"mediaType": layer_type, "digest": OTHER, "size": 9});
        json!({"schemaVersion": 2, "config": config, "layers": vec![layer; layers]})
    }

    #[test]
    fn layers_say_how_they_are_compressed() {
        for (kind, expected) in [
            ("application/vnd.oci.image.layer.v1.tar", Compression::None),
            (
                "application/vnd.oci.image.layer.v1.tar+zstd",
                Compression::Zstd,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                Compression::Gzip,
            ),
        ] {
            let Ok(Pointed::Manifest(manifest)) = pointed(&image(kind, 1)) else {
                panic!("{kind} is a layer");
            };
            assert_eq!(manifest.layers[0].1, expected, "{kind}");
        }
    }

    #[test]
    fn what_is_no_image_is_told_apart() {
        let tar = "application/vnd.oci.image.layer.v1.tar";
        let text = |document: &serde_json::Value| match pointed(document) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(text(&json!({"schemaVersion": 1})).contains("schema 1"));
        assert!(text(&json!({"schemaVersion": 2})).contains("neither"));
        assert!(text(&image("application/pdf", 1)).contains("cannot be unpacked"));
        assert!(text(&image(tar, 500)).contains("500 layers"));
        let mut chart = image(tar, 1);
        chart["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
        assert!(text(&chart).contains("helm"));
        let mut both = image(tar, 1);
        both["manifests"] = json!([]);
        assert!(
            text(&both).contains("neither"),
            "a document that is both is refused"
        );
        let mut evil = image(tar, 1);
        evil["layers"][0]["digest"] = json!("sha256:../../../etc/passwd");
        assert!(text(&evil).contains("no digest"));
        evil["layers"][0]["digest"] = json!(OTHER);
        evil["layers"][0]["size"] = json!(-1);
        assert!(text(&evil).contains("malformed"));
    }

    #[test]
    fn the_machine_gets_the_best_of_an_index() {
        let entry = |architecture: &str, variant: &str| {
            (
                Descriptor {
                    media_type: format!("{architecture}{variant}"),
                    digest: Digest::of(b""),
                    size: 1,
                    annotations: BTreeMap::new(),
                },
                Some(Platform {
                    os: "linux".to_owned(),
                    architecture: architecture.to_owned(),
                    variant: variant.to_owned(),
                }),
            )
        };
        let platform = |architecture: &str, variant: &str| Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        };
        let index = [
            entry("arm", "v6"),
            entry("arm", "v7"),
            entry("amd64", ""),
            entry("arm64", ""),
        ];
        for (here, expected) in [
            (platform("amd64", ""), Some("amd64")),
            (platform("arm64", "v8"), Some("arm64")),
            (platform("arm", "v7"), Some("armv7")),
            (platform("arm", "v6"), Some("armv6")),
            (platform("arm", "v5"), None),
            (platform("s390x", ""), None),
        ] {
            let found = choose(&index, &here)
                .ok()
                .map(|found| found.media_type.as_str());
            assert_eq!(found, expected, "{here}");
        }
        let error = choose(&index, &platform("s390x", "")).expect_err("none for it");
        assert!(
            error
                .to_string()
                .contains("linux/arm/v6, linux/arm/v7, linux/amd64")
        );
    }

    #[test]
    fn a_config_tells_what_to_run() {
        let config = json!({
            "config": {"Cmd": ["sh"], "Env": ["A=b=c", "D"], "User": "web", "StopSignal": "SIGQUIT", "Volumes": {"/data": {}}},
            "rootfs": {"type": "layers", "diff_ids": [OTHER]},
        });
        let config = parse_bare_config(config.to_string().as_bytes()).expect("a good config");
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(
            config.env,
            [
                ("A".to_owned(), "b=c".to_owned()),
                ("D".to_owned(), String::new())
            ]
        );
        assert_eq!(
            (config.user.as_str(), config.stop_signal.as_str()),
            ("web", "SIGQUIT")
        );
        assert_eq!(config.volumes, ["/data"]);
        assert_eq!(config.diff_ids.len(), 1);
        let bare = parse_bare_config(br#"{"config": null}"#).expect("a bare config");
        assert_eq!(bare, ImageConfig::default());
    }
}
