//! The tag of an image's name, as the container world reads names.

/// Whether `image` means the tag `latest`: it says so, or names neither a tag nor a digest.
///
/// A name that is not well formed has no tag. `upstream: pkg/util/parsers.ParseImageName`
pub(super) fn is_latest(image: &str) -> bool {
    let (named, digest) = image
        .split_once('@')
        .map_or((image, None), |(named, digest)| (named, Some(digest)));
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (named, None),
    };
    if !is_name(name) || !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
        return false;
    }
    tag.map_or(digest.is_none(), |tag| tag == "latest")
}

fn is_name(name: &str) -> bool {
    let is_identifier = name.len() == 64
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let path = match name.split_once('/') {
        Some((domain, path)) if is_domain_like(domain) => {
            if !is_domain(domain) {
                return false;
            }
            path
        }
        Some(_) | None => name,
    };
    !is_identifier && name.len() <= 255 && path.split('/').all(is_path_component)
}

/// Whether the first component names a registry and not a folder on the default one.
fn is_domain_like(component: &str) -> bool {
    component.contains(['.', ':'])
        || component == "localhost"
        || component.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    if domain.starts_with('[') {
        return true;
    }
    let (host, port) = domain
        .split_once(':')
        .map_or((domain, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label)
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric);
    let separators = component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|part| !part.is_empty());
    ends && separators
        .into_iter()
        .all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.first().copied().is_some_and(word)
        && bytes.len() <= 128
        && bytes
            .iter()
            .all(|byte| word(*byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && hex.len() >= 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::is_latest;

    #[test]
    fn names_without_tag_or_digest_are_latest() {
        let digest = "a@sha256:0123456789012345678901234567890123456789012345678901234567890123";
        for (image, want) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1", false),
            ("localhost:5000/a/b", true),
            ("localhost:5000/a/b:2", false),
            ("stead.dev/host", true),
            (digest, false),
            ("", false),
            ("UPPER", false),
            ("Reg.io/a", true),
            ("a:b:c", false),
            ("a//b", false),
            ("a_-b", false),
        ] {
            assert_eq!(is_latest(image), want, "{image}");
        }
    }
}
