//! The host name that a pod's containers see.
//!
//! Upstream: `truncatePodHostnameIfNeeded` and `getFQDN` in `kubelet_pods.go`.

/// upstream: the longest host name of a pod.
const LONGEST: usize = 63;
/// The longest that Linux takes.
const LONGEST_IN_LINUX: usize = 64;

/// A pod's name, cut where it is too long for a host.
pub(crate) fn hostname(name: &str) -> String {
    let cut: String = name.chars().take(LONGEST).collect();
    if cut.len() < name.len() {
        cut.trim_end_matches(['-', '.']).to_owned()
    } else {
        cut
    }
}

/// The host name with its domain (`setHostnameAsFQDN`), or the kubelet's sentence when Linux does not take it.
pub(crate) fn full_hostname(hostname: &str, domain: &str) -> Result<String, String> {
    let full = format!("{hostname}.{domain}");
    if full.len() > LONGEST_IN_LINUX {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({LONGEST_IN_LINUX} characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_and_a_long_domain_is_refused() {
        assert_eq!(hostname("web-0"), "web-0");
        assert_eq!(hostname(&format!("{}-.x", "a".repeat(61))), "a".repeat(61));
        assert_eq!(
            full_hostname("web-0", "web.ns.svc.cluster.local").as_deref(),
            Ok("web-0.web.ns.svc.cluster.local")
        );
        let refused = full_hostname("web-0", &"d".repeat(60)).expect_err("too long");
        assert!(
            refused.ends_with("(64 characters is the max, 66 characters requested)"),
            "{refused}"
        );
    }
}
