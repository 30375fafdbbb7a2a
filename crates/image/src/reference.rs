//! Names of images: `[host[:port]/]component[/component]...[:tag][@digest]`, as the distribution project defines them.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry that a name without a host means.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A name with everything that is left out of it filled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    /// Host, with a port where one was given.
    pub registry: String,
    /// Path within the registry.
    pub repository: String,
    /// `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// The very bytes that are meant.
    pub digest: Option<Digest>,
}

/// Why a text is no name of an image. The words are those that users know from other engines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The digest is not one.
    #[error("invalid reference format: the digest is malformed")]
    Digest,
    /// A repository in capitals.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// Anything else.
    #[error("invalid reference format")]
    Format,
}

impl ImageName {
    /// Reads a name, and fills in what it leaves out.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<ImageName, NameError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| NameError::Digest)?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (whole, tag) = match rest.get(last..).and_then(|name| name.split_once(':')) {
            Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(NameError::Format);
        }
        let (host, path) = match whole.split_once('/') {
            Some((host, path)) if is_host(host) => (Some(host), path),
            Some(_) | None => (None, whole),
        };
        check_path(path, whole.len())?;
        Ok(filled(host, path, tag, digest))
    }

    /// `registry/repository`, without tag and digest.
    pub fn full_repository(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What a registry is asked for: the digest where there is one, else the tag.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

fn filled(host: Option<&str>, path: &str, tag: Option<&str>, digest: Option<Digest>) -> ImageName {
    let registry = match host {
        None | Some("index.docker.io") => DEFAULT_REGISTRY,
        Some(host) => host,
    };
    let official = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if official {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some("latest".to_owned()),
    };
    ImageName {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    }
}

fn check_path(path: &str, whole: usize) -> Result<(), NameError> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(NameError::UpperCase(path.chars().take(255).collect()));
    }
    if whole > 255 || !path.split('/').all(is_component) {
        return Err(NameError::Format);
    }
    Ok(())
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registry,
            repository,
            tag,
            digest,
        } = self;
        write!(f, "{registry}/{repository}")?;
        if let Some(tag) = tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        ImageName::parse(text)
    }
}

/// The first component is a registry when it could be a host name of more than one label, with a port, or localhost.
fn is_host(text: &str) -> bool {
    let name = text.split_once(':').map_or(text, |(name, _)| name);
    let looks = text.contains('.')
        || text.contains(':')
        || text == "localhost"
        || text.bytes().any(|b| b.is_ascii_uppercase());
    let port_ok = text
        .split_once(':')
        .is_none_or(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let label_ok = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    looks && port_ok && name.split('.').all(label_ok)
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let separators_ok = text
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'));
    text.bytes().all(allowed)
        && edge(text.bytes().next())
        && edge(text.bytes().next_back())
        && separators_ok
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_a_name_leaves_out_is_filled_in() {
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("bitnami/nginx:1", "docker.io/bitnami/nginx:1".to_owned()),
            (
                "index.docker.io/nginx",
                "docker.io/library/nginx:latest".to_owned(),
            ),
            ("localhost/a", "localhost/a:latest".to_owned()),
            (
                "localhost:5000/a/b__c-d.e:v1.2",
                "localhost:5000/a/b__c-d.e:v1.2".to_owned(),
            ),
            (
                &format!("quay.io/a/b@sha256:{HEX}"),
                format!("quay.io/a/b@sha256:{HEX}"),
            ),
            (
                &format!("a:1@sha256:{HEX}"),
                format!("docker.io/library/a:1@sha256:{HEX}"),
            ),
            ("Upper/case", "Upper/case:latest".to_owned()),
        ] {
            let name = ImageName::parse(text).map(|name| name.to_string());
            assert_eq!(name, Ok(full), "{text}");
        }
    }

    #[test]
    fn a_full_name_reads_as_itself() {
        for text in ["docker.io/library/nginx:latest", "10.0.0.1:5000/x:y"] {
            assert_eq!(
                ImageName::parse(text).expect("a good name").to_string(),
                text
            );
        }
    }

    #[test]
    fn other_texts_are_no_names() {
        for text in [
            "",
            "a//b",
            "a:",
            ":a",
            "Bad:Image:Name",
            "library/Case",
            "a@sha256:12",
            "a b",
            "../a",
            "a/../b",
            "-a",
            "a@",
        ] {
            assert!(ImageName::parse(text).is_err(), "{text}");
        }
        assert!(ImageName::parse(&"a".repeat(256)).is_err());
    }
}
