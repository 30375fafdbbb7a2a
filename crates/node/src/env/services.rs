//! Variables that tell a container of the Services in its namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

/// Upstream: `envvars.FromServices`. `links`: whether Services other than `default/kubernetes` are told.
pub(crate) fn variables(
    services: &[core::Service],
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for service in services {
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let is_api = own == "default" && name == "kubernetes";
        if is_api || (links && own == namespace) {
            one(&mut env, name, service);
        }
    }
    env
}

fn one(env: &mut BTreeMap<String, String>, name: &str, service: &core::Service) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None")
    else {
        return;
    };
    let prefix = variable(name);
    let Some(first) = spec.ports.iter().flatten().next() else {
        return;
    };
    env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    env.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    env.insert(format!("{prefix}_PORT"), url(first, ip));
    for port in spec.ports.iter().flatten() {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            env.insert(
                format!("{prefix}_SERVICE_PORT_{}", variable(name)),
                port.port.to_string(),
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let one = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.insert(one.clone(), url(port, ip));
        env.insert(format!("{one}_PROTO"), protocol.to_lowercase());
        env.insert(format!("{one}_PORT"), port.port.to_string());
        env.insert(format!("{one}_ADDR"), ip.to_owned());
    }
}

fn url(port: &core::ServicePort, ip: &str) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    format!("{protocol}://{host}:{}", port.port)
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_gives_the_variables_that_upstream_gives() {
        let service = |namespace: &str, name: &str, ip: &str| -> core::Service {
            let port = json!({"name": "p-1", "port": 80, "protocol": "TCP"});
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": ip, "ports": [port]}});
            serde_json::from_value(object).expect("a service")
        };
        let all = [
            service("default", "kubernetes", "10.0.0.1"),
            service("a", "my-db", "10.0.0.2"),
            service("a", "headless", "None"),
            service("b", "other", "10.0.0.3"),
        ];
        let names = |links| {
            variables(&all, "a", links)
                .into_iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(false),
            [
                "KUBERNETES_PORT=tcp://10.0.0.1:80",
                "KUBERNETES_PORT_80_TCP=tcp://10.0.0.1:80",
                "KUBERNETES_PORT_80_TCP_ADDR=10.0.0.1",
                "KUBERNETES_PORT_80_TCP_PORT=80",
                "KUBERNETES_PORT_80_TCP_PROTO=tcp",
                "KUBERNETES_SERVICE_HOST=10.0.0.1",
                "KUBERNETES_SERVICE_PORT=80",
                "KUBERNETES_SERVICE_PORT_P_1=80",
            ]
        );
        let linked = names(true);
        assert_eq!(linked.len(), 16);
        assert!(linked.contains(&"MY_DB_SERVICE_HOST=10.0.0.2".to_owned()));
    }
}
