//! The pods' network: an IPv4 range that no network of the machine overlaps. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::objects::Block;

/// Every range that is chosen is a /24 of 10/8: 253 pods.
const CHOSEN_PREFIX: u8 = 24;
/// A range must have room for the gateway and a pod.
const LONGEST_PREFIX: u8 = 30;

/// A range of addresses; the first is the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Range {
    network: Ipv4Addr,
    prefix: u8,
}

impl Range {
    /// A range for the folder with this hash, of those that overlap none of `networks`.
    pub(super) fn choose(hash: u32, networks: &[(Ipv4Addr, u8)]) -> Option<Self> {
        (0..=255u8)
            .map(|step| {
                let [_, _, _, start] = hash.to_be_bytes();
                Self {
                    network: Ipv4Addr::new(10, start.wrapping_add(step), 0, 0),
                    prefix: CHOSEN_PREFIX,
                }
            })
            .find(|range| range.clash(networks).is_none())
    }

    /// The first network that overlaps this range.
    pub(super) fn clash(&self, networks: &[(Ipv4Addr, u8)]) -> Option<(Ipv4Addr, u8)> {
        networks.iter().copied().find(|(network, prefix)| {
            let shorter = (*prefix).min(self.prefix);
            mask(u32::from(*network), shorter) == mask(u32::from(self.network), shorter)
        })
    }

    /// The range without the wish that pods fit in.
    pub(super) fn block(&self) -> Block {
        let Self { network, prefix } = *self;
        Block { network, prefix }
    }

    /// The machine's own address in the range.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network).wrapping_add(1))
    }

    /// The lowest address for a pod that is not taken.
    pub(crate) fn free(&self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let first = u32::from(self.network);
        let last = first | (u32::MAX >> self.prefix);
        (first.saturating_add(2)..last)
            .map(Ipv4Addr::from)
            .find(|address| !taken.contains(address))
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text} is no IPv4 range such as 10.20.0.0/24");
        let (network, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let network: Ipv4Addr = network.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if prefix == 0 || prefix > LONGEST_PREFIX {
            return Err(format!("{text} is too small or too large for pods"));
        }
        if mask(u32::from(network), prefix) != u32::from(network) {
            return Err(format!("{text} has address bits behind its prefix"));
        }
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, prefix } = self;
        write!(f, "{network}/{prefix}")
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

fn mask(address: u32, prefix: u8) -> u32 {
    address & !u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().expect("a range")
    }

    #[test]
    fn a_range_that_overlaps_the_machines_networks_is_not_chosen() {
        let ten = |second| (Ipv4Addr::new(10, second, 0, 7), 16);
        assert_eq!(Range::choose(7, &[]), Some(range("10.7.0.0/24")));
        assert_eq!(
            Range::choose(7, &[ten(7), ten(8)]),
            Some(range("10.9.0.0/24"))
        );
        assert_eq!(Range::choose(7, &[(Ipv4Addr::new(10, 0, 0, 0), 8)]), None);
    }

    #[test]
    fn pods_get_what_lies_between_the_gateway_and_the_end() {
        let small = range("10.1.2.0/30");
        assert_eq!(small.gateway(), Ipv4Addr::new(10, 1, 2, 1));
        let only = Ipv4Addr::new(10, 1, 2, 2);
        assert_eq!(small.free(&BTreeSet::new()), Some(only));
        assert_eq!(small.free(&BTreeSet::from([only])), None);
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_reason() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/0",
            "10.0.0.0/31",
            "10.0.0.1/24",
            "ten/8",
            "10.0.0.0/x",
        ] {
            assert!(
                text.parse::<Range>().is_err_and(|why| why.contains(text)),
                "{text}"
            );
        }
    }
}
