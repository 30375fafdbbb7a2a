//! Where a registry is asked: itself, or mirrors before it; and who may be asked without TLS. Pure but for reading a small file.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::reference::DEFAULT_REGISTRY;

use super::http::is_loopback;

/// What is set for registries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Registries {
    /// Mirrors of a registry, asked in order before it: addresses such as `https://mirror.example`. One that begins with
    /// `http://` is spoken to without TLS.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries that are spoken to without TLS: hosts, with their ports. Loopback always is.
    pub plain_http: Vec<String>,
}

/// Why what is set for registries cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// The file cannot be read.
    #[error("could not read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no JSON of this shape.
    #[error("{path} is malformed: {why}; {EXAMPLE} is an example")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Not `registry=address`.
    #[error("{0:?} is no mirror; docker.io=https://mirror.example is an example")]
    Mirror(String),
}

const EXAMPLE: &str =
    r#"{"mirrors": {"docker.io": ["https://mirror.example"]}, "plainHttp": ["registry.lan:5000"]}"#;

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `https://host[:port]`.
    pub(super) base: String,
    /// Host and port.
    pub(super) host: String,
    /// The registry whose login is used there.
    pub(super) account: String,
    /// Whether plain HTTP is allowed there.
    pub(super) plain: bool,
}

impl Registries {
    /// Reads the file; one that is missing sets nothing.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Registries, RegistriesError> {
        let path_text = || path.display().to_string();
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| RegistriesError::Malformed {
                path: path_text(),
                why: error.to_string(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Registries::default()),
            Err(source) => Err(RegistriesError::Read {
                path: path_text(),
                source,
            }),
        }
    }

    /// Takes one more mirror, as the command line has it: `registry=address`. It is asked before the others.
    ///
    /// # Errors
    /// When it has no such form.
    pub fn add_mirror(&mut self, text: &str) -> Result<(), RegistriesError> {
        let wrong = || RegistriesError::Mirror(text.to_owned());
        let (registry, address) = text.split_once('=').ok_or_else(wrong)?;
        if registry.is_empty() || mirror(address).is_none() {
            return Err(wrong());
        }
        let mirrors = self.mirrors.entry(registry.to_owned()).or_default();
        mirrors.insert(0, address.to_owned());
        Ok(())
    }

    /// Where to ask for what is in a registry, in order; the last one is the registry itself.
    pub(super) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirrors = self.mirrors.get(registry).into_iter().flatten();
        mirrors
            .filter_map(|address| mirror(address))
            .chain([self.registry(registry)])
            .collect()
    }

    fn registry(&self, registry: &str) -> Endpoint {
        let host = if registry == DEFAULT_REGISTRY {
            "registry-1.docker.io"
        } else {
            registry
        };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let plain = is_loopback(name) || self.plain_http.iter().any(|allowed| allowed == registry);
        let scheme = if plain { "http" } else { "https" };
        Endpoint {
            base: format!("{scheme}://{host}"),
            host: host.to_owned(),
            account: registry.to_owned(),
            plain,
        }
    }
}

fn mirror(address: &str) -> Option<Endpoint> {
    let address = address.trim_end_matches('/');
    let (scheme, host) = address.split_once("://").unwrap_or(("https", address));
    let known =
        matches!(scheme, "http" | "https") && !host.is_empty() && !host.contains(['/', '@', ' ']);
    known.then(|| Endpoint {
        base: format!("{scheme}://{host}"),
        host: host.to_owned(),
        account: host.to_owned(),
        plain: scheme == "http",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_asked_after_its_mirrors_and_without_tls_only_where_allowed() {
        let mut registries: Registries =
            serde_json::from_str(EXAMPLE).expect("the example is right");
        registries
            .add_mirror("docker.io=http://127.0.0.1:5000/")
            .expect("a mirror");
        let bases = |registry: &str| -> Vec<String> {
            registries
                .endpoints(registry)
                .into_iter()
                .map(|endpoint| endpoint.base)
                .collect()
        };
        assert_eq!(
            bases("docker.io"),
            [
                "http://127.0.0.1:5000",
                "https://mirror.example",
                "https://registry-1.docker.io"
            ]
        );
        assert_eq!(bases("quay.io"), ["https://quay.io"]);
        assert_eq!(bases("registry.lan:5000"), ["http://registry.lan:5000"]);
        assert_eq!(bases("registry.lan"), ["https://registry.lan"]);
        assert_eq!(bases("localhost:5000"), ["http://localhost:5000"]);
    }

    #[test]
    fn a_login_is_that_of_the_host_that_is_asked() {
        let mut registries = Registries::default();
        registries
            .add_mirror("docker.io=https://mirror.example")
            .expect("a mirror");
        let accounts: Vec<String> = registries
            .endpoints("docker.io")
            .into_iter()
            .map(|e| e.account)
            .collect();
        assert_eq!(accounts, ["mirror.example", "docker.io"]);
    }

    #[test]
    fn what_is_no_mirror_is_refused() {
        for text in [
            "",
            "docker.io",
            "=https://a",
            "docker.io=",
            "docker.io=ftp://a",
            "docker.io=https://u:p@a",
            "docker.io=https://a/b",
        ] {
            assert!(Registries::default().add_mirror(text).is_err(), "{text}");
        }
    }
}
