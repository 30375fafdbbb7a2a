//! The range of addresses that Services have: a data folder's for life, for its Services have addresses of it.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What a data folder has that nobody asked about. upstream: kubeadm has 10.96.0.0/12.
const USUAL: ServiceRange = ServiceRange {
    network: Ipv4Addr::new(10, 96, 0, 0),
    prefix: 16,
};

/// A range of IPv4 addresses, between a /8 and a /28.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServiceRange {
    network: Ipv4Addr,
    prefix: u8,
}

/// Why a range cannot be.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// It is no range.
    #[error("{0} is no range for Services; give one such as 10.96.0.0/16, between a /8 and a /28")]
    Malformed(String),
    /// The folder has another.
    #[error(
        "the Services of this data folder have addresses of {known}, not of {asked}; leave --service-cidr out, or choose another --data-dir"
    )]
    Another {
        /// The folder's.
        known: String,
        /// What was asked for.
        asked: String,
    },
    /// It cannot be written down.
    #[error("could not keep the range of Services in {path}: make the data folder writable")]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ServiceRange {
    /// The range of a data folder: the one it has, the one asked for, or the usual one.
    pub(crate) fn of(data_dir: &Path, asked: Option<&str>) -> Result<Self, RangeError> {
        let known = match fs::read_to_string(file(data_dir)) {
            Ok(text) => Some(text.trim().parse()?),
            // A folder from before there was a choice.
            Err(_) if data_dir.join("pki").exists() => Some(USUAL),
            Err(_) => None,
        };
        match (asked.map(str::parse::<Self>).transpose()?, known) {
            (Some(asked), Some(known)) if asked != known => Err(RangeError::Another {
                known: known.to_string(),
                asked: asked.to_string(),
            }),
            (asked, known) => Ok(known.or(asked).unwrap_or(USUAL)),
        }
    }

    /// Writes it down, unless it is the usual one, which needs no word.
    pub(crate) fn keep(self, data_dir: &Path) -> Result<(), RangeError> {
        let path = file(data_dir);
        if self == USUAL || path.exists() {
            return Ok(());
        }
        let part = path.with_extension("part");
        let written = fs::write(&part, self.to_string()).and_then(|()| fs::rename(&part, &path));
        written.map_err(|source| RangeError::Keep { path, source })
    }

    /// Its first address: where pods find the API.
    pub(crate) fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network).saturating_add(1))
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("service-range")
}

impl FromStr for ServiceRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let parse = || {
            let (network, prefix) = text.split_once('/')?;
            let (network, prefix): (Ipv4Addr, u8) = (network.parse().ok()?, prefix.parse().ok()?);
            let behind = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            let fits = (8..=28).contains(&prefix) && u32::from(network) & behind == 0;
            fits.then_some(Self { network, prefix })
        };
        parse().ok_or_else(|| RangeError::Malformed(text.to_owned()))
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, prefix } = self;
        write!(f, "{network}/{prefix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_the_range_that_it_was_started_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |asked| ServiceRange::of(folder.path(), asked);
        assert_eq!(of(None).expect("the usual one").to_string(), "10.96.0.0/16");
        let chosen = of(Some("10.200.0.0/20")).expect("a range");
        assert_eq!(chosen.first(), Ipv4Addr::new(10, 200, 0, 1));
        chosen.keep(folder.path()).expect("it is written");
        assert_eq!(of(None).expect("its own"), chosen);
        let other = of(Some("10.201.0.0/20"))
            .expect_err("a refusal")
            .to_string();
        assert!(other.starts_with("the Services of this data folder have addresses of 10.200.0.0/20, not of 10.201.0.0/20"), "{other}");
    }

    #[test]
    fn a_folder_from_before_has_the_usual_range() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("pki")).expect("a folder in it");
        assert!(ServiceRange::of(folder.path(), Some("10.200.0.0/20")).is_err());
        assert_eq!(
            ServiceRange::of(folder.path(), None).expect("a range"),
            USUAL
        );
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_reason() {
        for text in [
            "",
            "10.96.0.0",
            "10.96.0.0/4",
            "10.96.0.0/30",
            "10.96.0.1/16",
            "fd00::/108",
        ] {
            let refused = text.parse::<ServiceRange>();
            assert!(
                refused.is_err_and(|why| why.to_string().contains(text)),
                "{text}"
            );
        }
    }
}
