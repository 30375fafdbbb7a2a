//! Which sysctls a pod may set: those that upstream holds for safe, of namespaces that are the pod's own.
//!
//! Upstream: `pkg/kubelet/sysctl` (`SafeSysctlAllowlist`, `patternAllowlist.validateSysctl`).

use k8s_openapi::api::core::v1 as core;

use super::admit::Rejection;

/// What changes nothing outside of the pod. upstream: the list of 1.36.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The name with dots: where the first separator is a slash, slashes separate and dots are part of names.
pub(crate) fn name(text: &str) -> String {
    match text.find(['.', '/']).and_then(|at| text.as_bytes().get(at)) {
        Some(b'/') => text
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        Some(_) | None => text.to_owned(),
    }
}

/// Refuses a pod that sets what it may not.
pub(super) fn check(spec: &core::PodSpec) -> Result<(), Rejection> {
    let all = spec
        .security_context
        .iter()
        .flat_map(|security| security.sysctls.iter().flatten());
    for sysctl in all {
        let name = name(&sysctl.name);
        let why = if !SAFE.contains(&name.as_str()) {
            "not allowlisted"
        } else if name.starts_with("net.") && spec.host_network == Some(true) {
            "not allowed with host net enabled"
        } else if name.starts_with("kernel.") && spec.host_ipc == Some(true) {
            "not allowed with host ipc enabled"
        } else {
            continue;
        };
        return Err(Rejection {
            reason: "SysctlForbidden",
            message: format!("forbidden sysctl: \"{}\" {why}", sysctl.name),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_text(name: &str, more: &str) -> String {
        let mut spec = json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        if !more.is_empty() {
            spec[more] = json!(true);
        }
        let spec: core::PodSpec = serde_json::from_value(spec).expect("a spec");
        check(&spec)
            .err()
            .map_or_else(|| "taken".to_owned(), |rejection| rejection.message)
    }

    #[test]
    fn safe_ones_of_the_pods_own_namespaces_are_taken() {
        assert_eq!(
            check_text("net.ipv4.ip_unprivileged_port_start", ""),
            "taken"
        );
        assert_eq!(check_text("net/ipv4/tcp_syncookies", ""), "taken");
        assert_eq!(check_text("kernel.shm_rmid_forced", "hostNetwork"), "taken");
        assert_eq!(
            check_text("kernel.msgmax", ""),
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted"
        );
        assert_eq!(
            check_text("net.ipv4.tcp_rmem", "hostNetwork"),
            "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled"
        );
        assert_eq!(
            check_text("kernel.shm_rmid_forced", "hostIPC"),
            "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled"
        );
    }

    #[test]
    fn a_name_may_have_slashes() {
        assert_eq!(
            name("net/ipv4/conf/eth0.1/forwarding"),
            "net.ipv4.conf.eth0/1.forwarding"
        );
        assert_eq!(name("kernel.sem"), "kernel.sem");
    }
}
