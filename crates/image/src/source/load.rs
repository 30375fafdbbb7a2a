//! Loading: every image that a layout or an archive names, checked and unpacked into the store.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::path::Path;

use serde::Deserialize;

use crate::digest::Digest;
use crate::document::{self, Compression, Descriptor, ImageConfig, Manifest, Platform, Pointed};
use crate::reference::ImageName;
use crate::store::{Hold, NameRecord, Store};
use crate::unpack::remove_tree;

use super::{Files, Part, SourceError, unread};

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its name in full.
    pub name: String,
    /// The digest of its config.
    pub id: Digest,
    /// Layers that were not here before.
    pub new_layers: usize,
    /// All its layers.
    pub layers: usize,
}

/// Loads every image that a layout folder or an archive names, or its only one as `name`. Blocks.
///
/// # Errors
/// See [`SourceError`]. Images before the one that failed stay.
pub fn load(
    store: &Store,
    path: &Path,
    name: Option<&ImageName>,
) -> Result<Vec<Loaded>, SourceError> {
    let hold = store.hold()?;
    let work = store.work_folder()?;
    let loaded = load_with(store, &hold, path, &work, name);
    // What cannot be removed now is swept at the next start.
    let _ = remove_tree(&work);
    loaded
}

fn load_with(
    store: &Store,
    hold: &Hold,
    path: &Path,
    work: &Path,
    name: Option<&ImageName>,
) -> Result<Vec<Loaded>, SourceError> {
    let loader = Loader {
        store,
        hold,
        files: Files::open(path, work)?,
        path,
    };
    let most = store.limits().manifest_bytes;
    if let Some(index) = loader.files.document("index.json", most)? {
        return loader.layout(&index, name);
    }
    if let Some(list) = loader.files.document("manifest.json", most)? {
        return loader.saved(&list, name);
    }
    Err(SourceError::NoImage(path.to_owned()))
}

struct Loader<'a> {
    store: &'a Store,
    hold: &'a Hold,
    files: Files,
    path: &'a Path,
}

/// One image of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Loader<'_> {
    fn layout(&self, index: &[u8], name: Option<&ImageName>) -> Result<Vec<Loaded>, SourceError> {
        let Pointed::Index(entries) = document::parse_pointed(index, self.store.limits())? else {
            return Err(SourceError::NoImage(self.path.to_owned()));
        };
        if let (Some(_), count @ 2..) = (name, entries.len()) {
            return Err(SourceError::Several {
                path: self.path.to_owned(),
                count,
            });
        }
        let mut loaded = Vec::new();
        for (descriptor, _) in &entries {
            let name = match name {
                Some(name) => name.clone(),
                None => self.noted_name(descriptor)?,
            };
            loaded.push(self.pointed(descriptor, &name)?);
        }
        if loaded.is_empty() {
            return Err(SourceError::NoImage(self.path.to_owned()));
        }
        Ok(loaded)
    }

    /// The name in the layout's notes. containerd writes the whole one, others a tag alone, which names nothing.
    fn noted_name(&self, descriptor: &Descriptor) -> Result<ImageName, SourceError> {
        let noted = |key: &str| descriptor.annotations.get(key);
        let name = noted("io.containerd.image.name")
            .or_else(|| noted("org.opencontainers.image.ref.name"))
            .filter(|name| name.contains(['/', ':']))
            .ok_or_else(|| SourceError::Nameless(self.path.to_owned()))?;
        parse_name(name)
    }

    fn pointed(&self, descriptor: &Descriptor, name: &ImageName) -> Result<Loaded, SourceError> {
        let limits = self.store.limits();
        let bytes = self.checked("the manifest", descriptor, limits.manifest_bytes)?;
        self.store.write_document(&descriptor.digest, &bytes)?;
        match document::parse_pointed(&bytes, limits)? {
            Pointed::Manifest(manifest) => self.image(
                &descriptor.digest,
                &descriptor.digest,
                bytes.len() as u64,
                &manifest,
                name,
            ),
            Pointed::Index(entries) => {
                let chosen = document::choose(&entries, &Platform::here())?;
                let bytes = self.checked("the manifest", chosen, limits.manifest_bytes)?;
                self.store.write_document(&chosen.digest, &bytes)?;
                let Pointed::Manifest(manifest) = document::parse_pointed(&bytes, limits)? else {
                    return Err(SourceError::NoImage(self.path.to_owned()));
                };
                self.image(
                    &descriptor.digest,
                    &chosen.digest,
                    bytes.len() as u64,
                    &manifest,
                    name,
                )
            }
        }
    }

    fn image(
        &self,
        digest: &Digest,
        manifest_digest: &Digest,
        manifest_size: u64,
        manifest: &Manifest,
        name: &ImageName,
    ) -> Result<Loaded, SourceError> {
        let config_bytes = self.checked(
            "the config",
            &manifest.config,
            self.store.limits().config_bytes,
        )?;
        let config = document::parse_config(&config_bytes, manifest)?;
        let mut new_layers = 0;
        for ((layer, _), diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
            if self.store.has_layer(diff_id) {
                continue;
            }
            self.check_layer(layer)?;
            let part = self.blob(layer)?;
            self.store.add_layer(
                self.hold,
                layer,
                diff_id,
                BufReader::with_capacity(1 << 16, part.bytes),
            )?;
            new_layers += 1;
        }
        let layers: u64 = manifest.layers.iter().map(|(layer, _)| layer.size).sum();
        let record = NameRecord {
            name: name.to_string(),
            digest: digest.clone(),
            manifest: manifest_digest.clone(),
            config: manifest.config.digest.clone(),
            layers: config.diff_ids.clone(),
            size: layers + manifest.config.size + manifest_size,
            pulled: false,
            at: jiff::Timestamp::now().to_string(),
        };
        self.finish(&record, &config_bytes, new_layers)
    }

    /// The form of `docker save` before engines wrote layouts: nothing but the config tells digests.
    fn saved(&self, list: &[u8], name: Option<&ImageName>) -> Result<Vec<Loaded>, SourceError> {
        let list: Vec<Saved> =
            serde_json::from_slice(list).map_err(|error| document::DocumentError::Malformed {
                what: "manifest",
                why: error.to_string(),
            })?;
        if let (Some(_), count @ 2..) = (name, list.len()) {
            return Err(SourceError::Several {
                path: self.path.to_owned(),
                count,
            });
        }
        let mut loaded = Vec::new();
        for saved in &list {
            loaded.extend(self.saved_image(saved, name)?);
        }
        Ok(loaded)
    }

    fn saved_image(
        &self,
        saved: &Saved,
        name: Option<&ImageName>,
    ) -> Result<Vec<Loaded>, SourceError> {
        let limits = self.store.limits();
        let config_bytes = self
            .files
            .document(&saved.config, limits.config_bytes)?
            .ok_or_else(|| missing(&saved.config))?;
        let config = document::parse_bare_config(&config_bytes)?;
        let (new_layers, size) = self.saved_layers(saved, &config)?;
        let names = match name {
            Some(name) => vec![name.clone()],
            None => saved
                .repo_tags
                .iter()
                .flatten()
                .map(|name| parse_name(name))
                .collect::<Result<Vec<_>, _>>()?,
        };
        if names.is_empty() {
            return Err(SourceError::Nameless(self.path.to_owned()));
        }
        let id = Digest::of(&config_bytes);
        names
            .into_iter()
            .map(|name| {
                let record = NameRecord {
                    name: name.to_string(),
                    digest: id.clone(),
                    manifest: id.clone(),
                    config: id.clone(),
                    layers: config.diff_ids.clone(),
                    size: size + config_bytes.len() as u64,
                    pulled: false,
                    at: jiff::Timestamp::now().to_string(),
                };
                self.finish(&record, &config_bytes, new_layers)
            })
            .collect()
    }

    fn saved_layers(
        &self,
        saved: &Saved,
        config: &ImageConfig,
    ) -> Result<(usize, u64), SourceError> {
        if saved.layers.len() != config.diff_ids.len() {
            return Err(document::DocumentError::LayersDiffer {
                layers: saved.layers.len(),
                diffs: config.diff_ids.len(),
            }
            .into());
        }
        if saved.layers.len() > self.store.limits().layers {
            return Err(document::DocumentError::TooManyLayers {
                has: saved.layers.len(),
                most: self.store.limits().layers,
            }
            .into());
        }
        let (mut new, mut size) = (0, 0);
        for (path, diff_id) in saved.layers.iter().zip(&config.diff_ids) {
            let part = self.files.part(path)?.ok_or_else(|| missing(path))?;
            size += part.size;
            if self.store.has_layer(diff_id) {
                continue;
            }
            let layer = Descriptor {
                media_type: String::new(),
                digest: diff_id.clone(),
                size: part.size,
                annotations: BTreeMap::new(),
            };
            self.check_unpacked(path, diff_id)?;
            self.store.add_layer(
                self.hold,
                &layer,
                diff_id,
                BufReader::with_capacity(1 << 16, part.bytes),
            )?;
            new += 1;
        }
        Ok((new, size))
    }

    fn finish(
        &self,
        record: &NameRecord,
        config: &[u8],
        new_layers: usize,
    ) -> Result<Loaded, SourceError> {
        self.store.write_document(&record.config, config)?;
        self.store.write_name(record)?;
        Ok(Loaded {
            name: record.name.clone(),
            id: record.config.clone(),
            new_layers,
            layers: record.layers.len(),
        })
    }

    /// A document as a whole, with its size and digest checked.
    fn checked(
        &self,
        what: &'static str,
        descriptor: &Descriptor,
        most: u64,
    ) -> Result<Vec<u8>, SourceError> {
        let path = blob_path(&descriptor.digest);
        let bytes = self
            .files
            .document(&path, most)?
            .ok_or_else(|| missing(&path))?;
        check(what, descriptor, bytes.len() as u64, || {
            let mut hasher = descriptor.digest.hasher();
            hasher.update(&bytes);
            Ok(hasher.finish())
        })?;
        Ok(bytes)
    }

    fn check_layer(&self, layer: &Descriptor) -> Result<(), SourceError> {
        let part = self.blob(layer)?;
        check("the layer", layer, part.size, || {
            hash(part, layer.digest.hasher(), self.path)
        })
    }

    /// A layer that only its diff id tells of.
    fn check_unpacked(&self, path: &str, diff_id: &Digest) -> Result<(), SourceError> {
        let part = self.files.part(path)?.ok_or_else(|| missing(path))?;
        let mut input = BufReader::new(part.bytes);
        let first = io::BufRead::fill_buf(&mut input).map_err(unread(self.path))?;
        if crate::compression::detect(first) != Compression::None {
            // Checked by what it unpacks to, before it is given its place.
            return Ok(());
        }
        let part = Part {
            size: part.size,
            ..self.files.part(path)?.ok_or_else(|| missing(path))?
        };
        let found = hash(part, diff_id.hasher(), self.path)?;
        same("the layer", diff_id, found)
    }

    fn blob(&self, layer: &Descriptor) -> Result<Part, SourceError> {
        let path = blob_path(&layer.digest);
        self.files.part(&path)?.ok_or_else(|| missing(&path))
    }
}

fn check(
    what: &'static str,
    descriptor: &Descriptor,
    size: u64,
    digest: impl FnOnce() -> Result<Digest, SourceError>,
) -> Result<(), SourceError> {
    if size != descriptor.size {
        return Err(SourceError::Size {
            what,
            digest: descriptor.digest.clone(),
            wanted: descriptor.size,
            found: size,
        });
    }
    same(what, &descriptor.digest, digest()?)
}

fn same(what: &'static str, wanted: &Digest, found: Digest) -> Result<(), SourceError> {
    if found == *wanted {
        return Ok(());
    }
    Err(SourceError::Digest {
        what,
        wanted: wanted.clone(),
        found,
    })
}

fn hash(
    mut part: Part,
    mut hasher: crate::digest::Hasher,
    path: &Path,
) -> Result<Digest, SourceError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = part.bytes.read(&mut buffer).map_err(unread(path))?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}

fn blob_path(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("blobs/{}", text.replacen(':', "/", 1))
}

fn missing(path: &str) -> SourceError {
    SourceError::Missing {
        what: path.chars().take(200).collect(),
    }
}

fn parse_name(name: &str) -> Result<ImageName, SourceError> {
    ImageName::parse(name).map_err(|source| SourceError::Name {
        name: name.chars().take(200).collect(),
        source,
    })
}
