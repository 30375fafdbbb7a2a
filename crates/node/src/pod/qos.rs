//! Quality of service, from requests and limits of CPU and memory.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// `status.qosClass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has limits for both, and asks for just these.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// None asks for anything.
    BestEffort,
}

impl QosClass {
    /// Upstream's word.
    pub fn word(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }

    /// Upstream: `ComputePodQOS`, over init containers too.
    pub fn of(spec: &core::PodSpec) -> Self {
        let mut any = false;
        let mut guaranteed = true;
        for container in spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
        {
            let resources = container.resources.as_ref();
            let requests = amounts(resources.and_then(|r| r.requests.as_ref()));
            let limits = amounts(resources.and_then(|r| r.limits.as_ref()));
            any |= !requests.is_empty() || !limits.is_empty();
            guaranteed &= limits.len() == 2
                && (requests.is_empty() || requests.iter().all(|(k, v)| limits.get(k) == Some(v)));
        }
        match (any, guaranteed) {
            (false, _) => QosClass::BestEffort,
            (true, true) => QosClass::Guaranteed,
            (true, false) => QosClass::Burstable,
        }
    }
}

/// CPU and memory above zero, by name, in billionths.
fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> BTreeMap<&'static str, i128> {
    ["cpu", "memory"]
        .into_iter()
        .filter_map(|name| Some((name, quantity::parse(&list?.get(name)?.0)?)))
        .filter(|(_, amount)| *amount > 0)
        .collect()
}
