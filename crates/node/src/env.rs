//! The environment of a container: `envFrom`, `env`, `$(VAR)`, the downward API, and the variables of Services. Pure.
//!
//! Upstream: `kubelet_pods.go` (`makeEnvironmentVariables`) and `pkg/kubelet/envvars`.

pub(crate) mod fields;
pub(crate) mod services;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;

/// Keys and values of one configMap or secret; `None`: it does not exist.
pub(crate) type Values = Option<BTreeMap<String, Vec<u8>>>;

/// What references are resolved from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// By name, every configMap that the container refers to.
    pub(crate) config_maps: BTreeMap<String, Values>,
    /// By name, every secret.
    pub(crate) secrets: BTreeMap<String, Values>,
    /// Variables of Services, which yield to the pod's own.
    pub(crate) services: BTreeMap<String, String>,
    /// The pod's address, as `status.podIP` gives it.
    pub(crate) pod_ip: String,
}

/// Names of the configMaps and secrets that a container's environment needs.
pub(crate) fn references(container: &core::Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(
            from.config_map_ref
                .as_ref()
                .map(|source| source.name.clone()),
        );
        secrets.extend(from.secret_ref.as_ref().map(|source| source.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        maps.extend(
            source
                .config_map_key_ref
                .as_ref()
                .map(|key| key.name.clone()),
        );
        secrets.extend(source.secret_key_ref.as_ref().map(|key| key.name.clone()));
    }
    (maps, secrets)
}

/// The environment in order, or the sentence that the kubelet would give as `CreateContainerConfigError`.
pub(crate) fn resolve(
    pod: &core::Pod,
    container: &core::Container,
    sources: &Sources,
) -> Result<Vec<(String, String)>, String> {
    let mut env = Environment::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let values = if let Some(source) = &from.config_map_ref {
            whole(
                "configmap",
                &source.name,
                source.optional,
                sources.config_maps.get(&source.name),
            )?
        } else if let Some(source) = &from.secret_ref {
            whole(
                "secret",
                &source.name,
                source.optional,
                sources.secrets.get(&source.name),
            )?
        } else {
            BTreeMap::new()
        };
        for (key, value) in values {
            let name = format!("{prefix}{key}");
            if is_name(&name) {
                env.set(name, String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(
                variable.value.as_deref().unwrap_or_default(),
                &|name| {
                    env.get(name)
                        .or_else(|| sources.services.get(name).cloned())
                },
            )),
            Some(source) => from_source(pod, container, source, sources)?,
        };
        if let Some(value) = value {
            env.set(variable.name.clone(), value);
        }
    }
    for (name, value) in &sources.services {
        if env.get(name).is_none() {
            env.set(name.clone(), value.clone());
        }
    }
    Ok(env.list)
}

/// Program and arguments with `$(VAR)` expanded from the finished environment.
pub(crate) fn argv(container: &core::Container, env: &[(String, String)]) -> Vec<String> {
    let words = container
        .command
        .iter()
        .flatten()
        .chain(container.args.iter().flatten());
    words.map(|word| expand_from(word, env)).collect()
}

/// `$(VAR)` in `text`, from the finished environment.
pub(crate) fn expand_from(text: &str, env: &[(String, String)]) -> String {
    expand(text, &|name| {
        env.iter()
            .rfind(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    })
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Environment {
    list: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Environment {
    fn set(&mut self, name: String, value: String) {
        match self.places.get(&name) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.places.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.places
            .get(name)
            .map(|place| self.list[*place].1.clone())
    }
}

/// upstream: relaxed names since 1.34: printable ASCII without `=`.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

fn whole(
    kind: &str,
    name: &str,
    optional: Option<bool>,
    values: Option<&Values>,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    match values.cloned().flatten() {
        Some(values) => Ok(values),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(format!("{kind} \"{name}\" not found")),
    }
}

/// A single value; `None` where an optional reference leads nowhere.
fn from_source(
    pod: &core::Pod,
    container: &core::Container,
    source: &core::EnvVarSource,
    sources: &Sources,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        fields::field(pod, &field.field_path, Some(&sources.pod_ip)).map(Some)
    } else if let Some(resource) = &source.resource_field_ref {
        let name = resource
            .container_name
            .as_deref()
            .filter(|name| !name.is_empty());
        fields::resource(pod, name.unwrap_or(&container.name), resource).map(Some)
    } else if let Some(key) = &source.config_map_key_ref {
        let values = sources.config_maps.get(&key.name);
        keyed(
            pod,
            ("configmap", "ConfigMap"),
            &key.name,
            &key.key,
            key.optional,
            values,
        )
    } else if let Some(key) = &source.secret_key_ref {
        keyed(
            pod,
            ("secret", "Secret"),
            &key.name,
            &key.key,
            key.optional,
            sources.secrets.get(&key.name),
        )
    } else {
        Ok(None)
    }
}

fn keyed(
    pod: &core::Pod,
    (kind, type_name): (&str, &str),
    name: &str,
    key: &str,
    optional: Option<bool>,
    values: Option<&Values>,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let values = whole(kind, name, optional, values)?;
    match values.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(format!(
            "couldn't find key {key} in {type_name} {namespace}/{name}"
        )),
    }
}

/// Upstream: `third_party/forked/golang/expansion`: `$(NAME)` where NAME is known, `$$` for `$`, all else as it stands.
fn expand(text: &str, value_of: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after
            .strip_prefix('(')
            .and_then(|open| open.split_once(')'))
        {
            match value_of(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sources() -> Sources {
        let values = |pairs: &[(&str, &str)]| {
            Some(
                pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()))
                    .collect(),
            )
        };
        Sources {
            config_maps: BTreeMap::from([
                ("have".to_owned(), values(&[("k", "v"), ("x=y", "no")])),
                ("none".to_owned(), None),
            ]),
            secrets: BTreeMap::from([("s".to_owned(), values(&[("p", "w")]))]),
            services: BTreeMap::from([("DB_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned())]),
            pod_ip: "10.1.2.3".to_owned(),
        }
    }

    /// The environment of a container as `A=1 B=2`, or the error.
    fn check(container: serde_json::Value) -> String {
        let mut object = container;
        object["name"] = json!("c");
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "db"}},
            "spec": {"nodeName": "n", "containers": [object]},
        });
        let pod: core::Pod = serde_json::from_value(pod).expect("a pod");
        let container = pod.spec.as_ref().expect("a spec").containers[0].clone();
        match resolve(&pod, &container, &sources()) {
            Ok(env) => env
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    const SERVICE: &str = " DB_SERVICE_HOST=10.0.0.1";

    #[test]
    fn values_expand_from_what_stands_before_them_and_from_services() {
        let env = json!([{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)-$(C)-$$(A)-$"},
            {"name": "C", "value": "$(DB_SERVICE_HOST)"}, {"name": "A", "value": "$(A)y"}]);
        assert_eq!(
            check(json!({"env": env})),
            format!("A=xy B=x-$(C)-$(A)-$ C=10.0.0.1{SERVICE}")
        );
    }

    #[test]
    fn references_are_resolved_or_said_to_be_missing_in_upstreams_words() {
        let key = |kind: &str, name: &str, key: &str, optional: bool| json!({"env": [{"name": "A", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}]});
        assert_eq!(
            check(key("configMapKeyRef", "have", "k", false)),
            format!("A=v{SERVICE}")
        );
        assert_eq!(
            check(key("secretKeyRef", "s", "p", false)),
            format!("A=w{SERVICE}")
        );
        assert_eq!(
            check(key("configMapKeyRef", "none", "k", false)),
            "error: configmap \"none\" not found"
        );
        assert_eq!(
            check(key("configMapKeyRef", "have", "z", false)),
            "error: couldn't find key z in ConfigMap ns/have"
        );
        assert_eq!(
            check(key("secretKeyRef", "s", "z", true)),
            SERVICE.trim_start()
        );
        let from = json!({"envFrom": [{"prefix": "P_", "configMapRef": {"name": "have"}}, {"secretRef": {"name": "s"}}]});
        assert_eq!(check(from), format!("P_k=v p=w{SERVICE}"));
        assert_eq!(
            check(json!({"envFrom": [{"secretRef": {"name": "t"}}]})),
            "error: secret \"t\" not found"
        );
        assert_eq!(
            check(json!({"envFrom": [{"secretRef": {"name": "t", "optional": true}}]})),
            SERVICE.trim_start()
        );
    }

    #[test]
    fn the_downward_api_gives_fields_and_resources() {
        let field = |path: &str| {
            check(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}))
        };
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "ns"),
            ("metadata.uid", "u"),
            ("metadata.labels['app']", "db"),
            ("metadata.labels['none']", ""),
            ("spec.nodeName", "n"),
            ("status.podIP", "10.1.2.3"),
        ] {
            assert_eq!(field(path), format!("A={value}{SERVICE}"), "{path}");
        }
        assert!(field("spec.nonsense").starts_with("error:"));
        let resource = json!({"resources": {"limits": {"memory": "32Mi", "cpu": "1500m"}}, "env": [
            {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]});
        assert_eq!(check(resource), format!("M=32 C=2{SERVICE}"));
    }
}
