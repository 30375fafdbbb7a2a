//! The spelling rules of names, keys, addresses and numbers; each answers with upstream's complaints, none when fine.
//!
//! Upstream: `apimachinery/pkg/util/validation`. Lengths are bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is wrong with a value; empty when nothing is.
pub(crate) type Complaints = Vec<String>;

const LABEL_WORDS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035_WORDS: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_WORDS: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_WORDS: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const KEY_WORDS: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const HEADER_WORDS: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const PERCENT_WORDS: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const PORT_WORDS: &str = "must be between 1 and 65535, inclusive";
const ENV_WORDS: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn is_alnum(c: u8) -> bool {
    c.is_ascii_alphanumeric()
}

fn is_lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Starts with `first`, ends with `last`, and consists of `inner`; never empty.
fn shaped(value: &str, first: fn(u8) -> bool, inner: fn(u8) -> bool, last: fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&a), Some(&z)) => first(a) && last(z) && bytes.iter().all(|&c| inner(c)),
        (None, _) | (_, None) => false,
    }
}

fn is_label(value: &str) -> bool {
    shaped(
        value,
        is_lower_alnum,
        |c| is_lower_alnum(c) || c == b'-',
        is_lower_alnum,
    )
}

fn too_long(most: usize) -> String {
    format!("must be no more than {most} bytes")
}

fn spelled(value: &str, most: usize, fine: bool, words: &str) -> Complaints {
    let mut wrong = Complaints::new();
    if value.len() > most {
        wrong.push(too_long(most));
    }
    if !fine {
        wrong.push(words.to_owned());
    }
    wrong
}

/// RFC 1123 label: 63 bytes.
pub(crate) fn dns1123_label(value: &str) -> Complaints {
    spelled(value, 63, is_label(value), LABEL_WORDS)
}

/// RFC 1123 subdomain: 253 bytes.
pub(crate) fn dns1123_subdomain(value: &str) -> Complaints {
    spelled(value, 253, is_subdomain(value), SUBDOMAIN_WORDS)
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

/// RFC 1035 label: 63 bytes, starts with a letter.
pub(crate) fn dns1035_label(value: &str) -> Complaints {
    let fine = shaped(
        value,
        |c| c.is_ascii_lowercase(),
        |c| is_lower_alnum(c) || c == b'-',
        is_lower_alnum,
    );
    spelled(value, 63, fine, LABEL_1035_WORDS)
}

/// RFC 1123 subdomain whose first label may be `*`.
pub(crate) fn wildcard_dns1123_subdomain(value: &str) -> Complaints {
    let fine = value.strip_prefix("*.").is_some_and(is_subdomain);
    spelled(
        value,
        253,
        fine,
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
}

fn is_name_part(value: &str) -> bool {
    shaped(
        value,
        is_alnum,
        |c| is_alnum(c) || matches!(c, b'-' | b'_' | b'.'),
        is_alnum,
    )
}

/// `[prefix/]name`: label and annotation keys, finalizers, resource names.
pub(crate) fn qualified_name(value: &str) -> Complaints {
    let mut wrong = Complaints::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(
                    dns1123_subdomain(prefix)
                        .iter()
                        .map(|words| format!("prefix part {words}")),
                );
            }
            *name
        }
        _ => {
            wrong.push(format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                QUALIFIED_WORDS.trim_start_matches("name part ")
            ));
            return wrong;
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !is_name_part(name) {
        wrong.push(QUALIFIED_WORDS.to_owned());
    }
    wrong
}

/// The value of a label: may be empty, 63 bytes.
pub(crate) fn label_value(value: &str) -> Complaints {
    spelled(
        value,
        63,
        value.is_empty() || is_name_part(value),
        LABEL_VALUE_WORDS,
    )
}

/// The key of a ConfigMap or Secret: 253 bytes, neither `.` nor `..`.
pub(crate) fn config_key(value: &str) -> Complaints {
    let fine = !value.is_empty()
        && value
            .bytes()
            .all(|c| is_alnum(c) || matches!(c, b'-' | b'_' | b'.'));
    let mut wrong = spelled(value, 253, fine, KEY_WORDS);
    wrong.extend(dot_complaints(value));
    wrong
}

fn dot_complaints(value: &str) -> Complaints {
    match value {
        "." => vec!["must not be '.'".to_owned()],
        ".." => vec!["must not be '..'".to_owned()],
        _ if value.starts_with("..") => vec!["must not start with '..'".to_owned()],
        _ => Complaints::new(),
    }
}

/// The name of an environment variable: printable ASCII without `=` (upstream since 1.34).
pub(crate) fn env_var_name(value: &str) -> Complaints {
    let fine = !value.is_empty()
        && value
            .bytes()
            .all(|c| (0x20..0x7f).contains(&c) && c != b'=');
    spelled(value, usize::MAX, fine, ENV_WORDS)
}

/// The prefix that `envFrom` puts before names: empty or as a name.
pub(crate) fn env_prefix(value: &str) -> Complaints {
    if value.is_empty() {
        Complaints::new()
    } else {
        env_var_name(value)
    }
}

/// The name of an HTTP header.
pub(crate) fn http_header_name(value: &str) -> Complaints {
    let fine = !value.is_empty() && value.bytes().all(|c| is_alnum(c) || c == b'-');
    spelled(value, usize::MAX, fine, HEADER_WORDS)
}

/// The name of a port (IANA service name): 15 bytes, at least one letter, no doubled or outer hyphen.
pub(crate) fn port_name(value: &str) -> Complaints {
    let mut wrong = Complaints::new();
    if value.len() > 15 {
        wrong.push("must be no more than 15 characters".to_owned());
    }
    if value.is_empty() || !value.bytes().all(|c| is_lower_alnum(c) || c == b'-') {
        wrong.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// A port number.
pub(crate) fn port_number(value: i64) -> Complaints {
    in_range(value, 1, 65535)
}

/// A number between two bounds, both included.
pub(crate) fn in_range(value: i64, least: i64, most: i64) -> Complaints {
    if (least..=most).contains(&value) {
        return Complaints::new();
    }
    if (least, most) == (1, 65535) {
        return vec![PORT_WORDS.to_owned()];
    }
    vec![format!("must be between {least} and {most}, inclusive")]
}

/// A user or group id.
pub(crate) fn id(value: i64) -> Complaints {
    in_range(value, 0, i64::from(i32::MAX))
}

/// `12%`.
pub(crate) fn percent(value: &str) -> Complaints {
    let fine = value
        .strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()));
    if fine {
        Complaints::new()
    } else {
        vec![PERCENT_WORDS.to_owned()]
    }
}

/// The number before the `%` of a valid percent.
pub(crate) fn percent_number(value: &str) -> Option<i64> {
    value.strip_suffix('%')?.parse().ok()
}

/// An IP address in its usual spelling.
pub(crate) fn ip(value: &str) -> Complaints {
    match value.parse::<IpAddr>() {
        Ok(_) => Complaints::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// An IPv4 address.
pub(crate) fn ipv4(value: &str) -> Complaints {
    match value.parse::<Ipv4Addr>() {
        Ok(_) => Complaints::new(),
        Err(_) => vec!["must be a valid IPv4 address".to_owned()],
    }
}

/// An IPv6 address.
pub(crate) fn ipv6(value: &str) -> Complaints {
    match value.parse::<Ipv6Addr>() {
        Ok(_) => Complaints::new(),
        Err(_) => vec!["must be a valid IPv6 address".to_owned()],
    }
}

/// `10.0.0.0/8`.
pub(crate) fn cidr(value: &str) -> Complaints {
    let fine = value.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    if fine {
        return Complaints::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
}

/// The prefix of generated names is spelled as a name would be whose tail is still to come.
pub(crate) fn as_prefix(value: &str, rule: fn(&str) -> Complaints) -> Complaints {
    // upstream: maskTrailingDash
    match value.strip_suffix('-') {
        Some(head) if !head.is_empty() => rule(&format!("{head}a")),
        Some(_) | None => rule(value),
    }
}

/// A name that stands in a path of the API: neither `.`, nor `..`, no `/`, no `%`.
pub(crate) fn path_segment(value: &str) -> Complaints {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        _ => ["/", "%"]
            .iter()
            .filter(|bad| value.contains(**bad))
            .map(|bad| format!("may not contain '{bad}'"))
            .collect(),
    }
}

/// An absolute path with no backsteps is wanted for a host path; upstream asks only for the backsteps.
pub(crate) fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}
