//! Volumes of pods.

use serde_json::{Map, Value};

use super::{is_absent, is_empty, object_mut, pod, text};

/// The mode of projected files: 0644.
pub(super) const MODE: i64 = 420;

/// A volume that names no source is an empty folder; an image volume is pulled as a container's image would be.
pub(super) fn volume(volume: &mut Map<String, Value>) {
    let sources: Vec<String> = volume
        .keys()
        .filter(|name| name.as_str() != "name")
        .cloned()
        .collect();
    if sources.iter().all(|name| is_absent(volume, name)) {
        volume.insert("emptyDir".to_owned(), Value::Object(Map::new()));
    }
    if let Some(image) = object_mut(volume, "image")
        && is_empty(image, "pullPolicy")
    {
        let policy = pod::pull_policy(text(image, "reference").unwrap_or_default());
        image.insert("pullPolicy".to_owned(), policy.into());
    }
}
