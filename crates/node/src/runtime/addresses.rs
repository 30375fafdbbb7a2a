//! Addresses of pods in the lower two tiers: one each of 127.0.0.0/8, found from the pod's UID. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

/// The second byte that is left to the machine's own services (127.0.0.1, 127.0.0.53, 127.0.1.1).
const MACHINE: u8 = 0;
/// The second byte that is kept for addresses of Services.
const SERVICES: u8 = 96;

/// An address for this pod that no other has. The same pod among the same others gets the same address.
pub(super) fn choose(uid: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let hash = Sha256::digest(uid.as_bytes());
    let start = hash
        .iter()
        .take(4)
        .fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte));
    let tries = u32::try_from(taken.len()).ok()?.saturating_add(1);
    // Every step of `usable` skips at most the two reserved sixteenths and the ends of the last byte.
    (0u32..)
        .map(|step| candidate(start.wrapping_add(step)))
        .filter(|address| usable(*address))
        .take(usize::try_from(tries).ok()?)
        .find(|address| !taken.contains(address))
}

fn candidate(number: u32) -> Ipv4Addr {
    let [_, b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(127, b, c, d)
}

fn usable(address: Ipv4Addr) -> bool {
    let [_, b, _, d] = address.octets();
    b != MACHINE && b != SERVICES && d != 0 && d != 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_keeps_its_address_and_shares_it_with_nobody() {
        let first = choose("a-uid", &BTreeSet::new()).expect("all are free");
        assert_eq!(choose("a-uid", &BTreeSet::new()), Some(first));
        let second = choose("a-uid", &BTreeSet::from([first])).expect("one is taken");
        assert_ne!(first, second);
    }

    #[test]
    fn addresses_of_the_machine_and_of_services_are_never_given() {
        for number in 0..5000 {
            let address = choose(&format!("pod-{number}"), &BTreeSet::new()).expect("all are free");
            assert!(address.is_loopback() && usable(address), "{address}");
        }
    }
}
