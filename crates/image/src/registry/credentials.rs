//! Names and passwords for registries, as docker config files and pull secrets have them. Pure but for reading the user's file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

/// Who to be to a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User.
    pub username: String,
    /// Password, or a token that stands for one.
    pub password: String,
}

/// A password is in no log.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({:?}, …)", self.username)
    }
}

/// Logins by the places that they are for; the first that fits best is taken.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Vec<(Place, Login)>);

/// A file that holds no logins.
#[derive(Debug, thiserror::Error)]
#[error("the credentials are malformed: {0}")]
pub struct CredentialsError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Host with its port; labels may be `*`.
    host: String,
    /// Beginning of the repositories that it is for; empty is all.
    path: String,
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// Reads the text of a `config.json`, or of a secret's `.dockerconfigjson`.
    ///
    /// # Errors
    /// When it is no JSON of this shape. An entry without name and password is left out.
    pub fn parse(text: &[u8]) -> Result<Credentials, CredentialsError> {
        let malformed = |error: serde_json::Error| CredentialsError(error.to_string());
        // By way of an object: a struct alone would be read from a list too.
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(malformed)?;
        let file: File = serde_json::from_value(object.into()).map_err(malformed)?;
        Ok(Self::of(file.auths))
    }

    /// Reads the older form, a secret's `.dockercfg`: the entries alone.
    ///
    /// # Errors
    /// When it is no JSON of this shape.
    pub fn parse_old(text: &[u8]) -> Result<Credentials, CredentialsError> {
        let auths =
            serde_json::from_slice(text).map_err(|error| CredentialsError(error.to_string()))?;
        Ok(Self::of(auths))
    }

    /// The user's own file: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`. What is
    /// missing or malformed is no login.
    pub fn of_user() -> Credentials {
        let Some(path) = file_of_user(&|name| std::env::var_os(name).map(PathBuf::from)) else {
            return Credentials::default();
        };
        match std::fs::read(&path).map(|text| Self::parse(&text)) {
            Ok(Ok(credentials)) => credentials,
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "a file of logins is left out");
                Credentials::default()
            }
            Err(_) => Credentials::default(),
        }
    }

    /// These, then those.
    #[must_use]
    pub fn and(mut self, others: Credentials) -> Credentials {
        self.0.extend(others.0);
        self
    }

    /// The login for a repository of a registry, the most particular one.
    pub fn for_repository(&self, registry: &str, repository: &str) -> Option<Login> {
        let mut best: Option<(usize, &Login)> = None;
        for (place, login) in &self.0 {
            let fits = place.fits(registry, repository);
            if fits && best.is_none_or(|(length, _)| place.path.len() > length) {
                best = Some((place.path.len(), login));
            }
        }
        best.map(|(_, login)| login.clone())
    }

    fn of(auths: BTreeMap<String, Entry>) -> Credentials {
        let all = auths
            .into_iter()
            .filter_map(|(place, entry)| Some((Place::parse(&place), entry.login()?)));
        Credentials(all.collect())
    }
}

impl Entry {
    fn login(self) -> Option<Login> {
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
            let (username, password) = text.split_once(':')?;
            // Some tools fill the end up with zeros.
            return Some(Login {
                username: username.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            });
        }
        Some(Login {
            username: self.username?,
            password: self.password?,
        })
    }
}

impl Place {
    /// `https://index.docker.io/v1/`, `quay.io`, `r.io:5000/team`, `*.r.io`.
    fn parse(text: &str) -> Place {
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let path = path.trim_matches('/');
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" => crate::reference::DEFAULT_REGISTRY,
            host => host,
        };
        Place {
            host: host.to_owned(),
            path: if matches!(path, "v1" | "v2") {
                ""
            } else {
                path
            }
            .to_owned(),
        }
    }

    /// upstream: the kubelet's `URLsMatch`: label by label, ports equal, the path's beginning.
    fn fits(&self, registry: &str, repository: &str) -> bool {
        let (ours, our_port) = self.host.split_once(':').unwrap_or((&self.host, ""));
        let (theirs, their_port) = registry.split_once(':').unwrap_or((registry, ""));
        let (ours, theirs): (Vec<&str>, Vec<&str>) =
            (ours.split('.').collect(), theirs.split('.').collect());
        let labels = ours.len() == theirs.len()
            && ours
                .iter()
                .zip(&theirs)
                .all(|(pattern, label)| label_fits(pattern, label));
        let below = repository
            .strip_prefix(self.path.as_str())
            .is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        labels && our_port == their_port && below
    }
}

fn label_fits(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => {
            label.len() >= start.len() + end.len()
                && label.starts_with(start)
                && label.ends_with(end)
        }
        None => pattern == label,
    }
}

fn file_of_user(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("REGISTRY_AUTH_FILE")
        .or_else(|| Some(variable("DOCKER_CONFIG")?.join("config.json")))
        .or_else(|| Some(variable("HOME")?.join(Path::new(".docker/config.json"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOnBhc3M6d29yZA=="},
        "r.io:5000": {"username": "whole", "password": "p"},
        "r.io:5000/team": {"username": "team", "password": "p"},
        "*.cloud.io": {"username": "star", "password": "p"},
        "empty.io": {}, "bad.io": {"auth": "%%%"}
    }, "credsStore": "x"}"#;

    fn who(registry: &str, repository: &str) -> String {
        let credentials = Credentials::parse(FILE.as_bytes()).expect("a good file");
        let login = credentials.for_repository(registry, repository);
        login.map(|login| login.username).unwrap_or_default()
    }

    #[test]
    fn the_most_particular_login_is_taken() {
        for (registry, repository, expected) in [
            ("docker.io", "library/nginx", "hub"),
            ("r.io:5000", "x", "whole"),
            ("r.io:5000", "team/x", "team"),
            ("r.io:5000", "teammates/x", "whole"),
            ("r.io", "x", ""),
            ("eu.cloud.io", "x", "star"),
            ("a.b.cloud.io", "x", ""),
            ("cloud.io", "x", ""),
            ("evil.io", "x", ""),
            ("empty.io", "x", ""),
            ("bad.io", "x", ""),
        ] {
            assert_eq!(
                who(registry, repository),
                expected,
                "{registry}/{repository}"
            );
        }
    }

    #[test]
    fn passwords_may_have_colons_and_are_not_shown() {
        let credentials = Credentials::parse(FILE.as_bytes()).expect("a good file");
        let login = credentials
            .for_repository("docker.io", "a/b")
            .expect("a login");
        assert_eq!(login.password, "pass:word");
        assert!(!format!("{credentials:?}").contains("word"));
        assert!(Credentials::parse(b"[]").is_err());
        let old = Credentials::parse_old(br#"{"a.io": {"auth": "dTpw"}}"#).expect("a good file");
        assert!(old.for_repository("a.io", "x").is_some());
    }

    #[test]
    fn the_users_file_is_found_by_its_variables() {
        let find = |set: &[&str]| {
            let variable = |name: &str| {
                set.contains(&name)
                    .then(|| PathBuf::from(format!("/{name}")))
            };
            file_of_user(&variable).map(|path| path.display().to_string())
        };
        assert_eq!(
            find(&["HOME", "DOCKER_CONFIG"]).as_deref(),
            Some("/DOCKER_CONFIG/config.json")
        );
        assert_eq!(
            find(&["HOME"]).as_deref(),
            Some("/HOME/.docker/config.json")
        );
        assert_eq!(find(&[]), None);
    }
}
