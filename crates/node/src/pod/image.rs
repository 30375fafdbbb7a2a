//! Image names: which are well formed, and which one this node can give.

/// The image that is always there: the machine's own file system.
pub const HOST_IMAGE: &str = "stead.dev/host";

/// When an image is fetched, as `imagePullPolicy` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Whenever a container starts.
    Always,
    /// When it is not on the machine.
    IfNotPresent,
    /// Never: it must be on the machine.
    Never,
}

/// Why a container's image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ImageProblem {
    /// The name breaks the grammar; the text says where.
    Invalid(String),
    /// Not on the machine, and the policy forbids to fetch it.
    NeverPulled,
    /// Not on the machine, and it cannot be fetched.
    Unavailable,
}

/// Checks the name of an image and whether it can be had.
pub(super) fn check(name: &str, policy: PullPolicy) -> Result<(), ImageProblem> {
    let repository = repository(name).map_err(ImageProblem::Invalid)?;
    match (repository == HOST_IMAGE, policy) {
        (true, _) => Ok(()),
        (false, PullPolicy::Never) => Err(ImageProblem::NeverPulled),
        (false, PullPolicy::Always | PullPolicy::IfNotPresent) => Err(ImageProblem::Unavailable),
    }
}

/// The name without its tag and digest, once all of it is known to be well formed.
///
/// Grammar: `[host[:port]/]component[/component]...[:tag][@algorithm:hex]`, as the distribution project defines it.
fn repository(name: &str) -> Result<&str, String> {
    let (rest, digest) = name
        .split_once('@')
        .map_or((name, None), |(rest, digest)| (rest, Some(digest)));
    if let Some(digest) = digest
        && !is_digest(digest)
    {
        return Err("invalid reference format: the digest is malformed".to_owned());
    }
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match rest[last..].find(':') {
        Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
        None => (rest, None),
    };
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err("invalid reference format".to_owned());
    }
    let path = match repository.split_once('/') {
        Some((host, path)) if is_host(host) => path,
        Some(_) | None => repository,
    };
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!(
            "invalid reference format: repository name ({path}) must be lowercase"
        ));
    }
    if path.split('/').all(is_component) && repository.len() <= 255 {
        Ok(repository)
    } else {
        Err("invalid reference format".to_owned())
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

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_into_ours_malformed_never_and_unavailable() {
        let verdict = |name: &str, policy| match check(name, policy) {
            Ok(()) => "ours",
            Err(ImageProblem::Invalid(_)) => "invalid",
            Err(ImageProblem::NeverPulled) => "never",
            Err(ImageProblem::Unavailable) => "unavailable",
        };
        for (name, expected) in [
            ("stead.dev/host", "ours"),
            ("stead.dev/host:latest", "ours"),
            ("stead.dev/hostx", "unavailable"),
            ("nginx", "unavailable"),
            ("localhost:5000/a/b__c-d.e:v1.2", "unavailable"),
            ("Bad:Image:Name", "invalid"),
            ("Upper/case", "unavailable"),
            ("library/Case", "invalid"),
            ("a//b", "invalid"),
            ("a:", "invalid"),
            ("", "invalid"),
            ("a@sha256:12", "invalid"),
        ] {
            assert_eq!(verdict(name, PullPolicy::IfNotPresent), expected, "{name}");
        }
        assert_eq!(verdict("local.test/none:1", PullPolicy::Never), "never");
        assert_eq!(verdict("Bad:Image:Name", PullPolicy::Never), "invalid");
    }
}
