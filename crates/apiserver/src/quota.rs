//! Resource quotas: what each object takes of them, and whether one more still fits. Pure.
//!
//! What is used is counted from the objects themselves: nothing is stored that could go stale.

use std::collections::BTreeMap;

use serde_json::Value;
use stead_schema::quantity::Quantity;

/// Amounts by the names that quotas have for them: `pods`, `requests.cpu`, `count/deployments.apps`.
pub type Amounts = BTreeMap<String, Quantity>;

/// What one object takes, under every name that a quota may use.
pub fn taken(group: &str, plural: &str, object: &Value) -> Amounts {
    let mut taken = Amounts::new();
    let one = || Quantity::parse("1").ok();
    let counted = if group.is_empty() {
        format!("count/{plural}")
    } else {
        format!("count/{plural}.{group}")
    };
    taken.extend(one().map(|one| (counted, one)));
    if group.is_empty() {
        taken.extend(one().map(|one| (plural.to_owned(), one)));
        match plural {
            "pods" if is_ended(object) => {
                taken.remove("pods");
                return taken;
            }
            "pods" => pod(object, &mut taken),
            "persistentvolumeclaims" => claim(object, &mut taken),
            "services" => service(object, &mut taken),
            _ => {}
        }
    }
    taken
}

fn is_ended(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

fn put(to: &mut Amounts, name: String, amount: Option<Quantity>) {
    let Some(amount) = amount else { return };
    let sum = to.get(&name).map_or(amount, |own| own.plus(&amount));
    to.insert(name, sum);
}

fn amount(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn items<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    object[field].as_array().into_iter().flatten()
}

fn pod(pod: &Value, taken: &mut Amounts) {
    for field in ["requests", "limits"] {
        for (name, sum) in whole_pod(&pod["spec"], field) {
            if field == "requests"
                && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            {
                put(taken, name.clone(), Some(sum));
            }
            put(taken, format!("{field}.{name}"), Some(sum));
        }
    }
}

/// What a pod's containers ask for together: the sum, or the largest of those that run alone before them.
fn whole_pod(spec: &Value, field: &str) -> Amounts {
    let of = |container: &Value| -> Amounts {
        let own = container["resources"][field]
            .as_object()
            .into_iter()
            .flatten();
        own.filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
            .collect()
    };
    let is_sidecar = |container: &&Value| container["restartPolicy"] == "Always";
    let mut together = Amounts::new();
    let beside = items(spec, "containers").chain(items(spec, "initContainers").filter(is_sidecar));
    for (name, own) in beside.flat_map(of) {
        put(&mut together, name, Some(own));
    }
    let alone = items(spec, "initContainers").filter(|own| !is_sidecar(own));
    for (name, own) in alone.flat_map(of) {
        let most = together.get(&name).map_or(own, |sum| own.max(*sum));
        together.insert(name, most);
    }
    together
}

fn claim(claim: &Value, taken: &mut Amounts) {
    let spec = &claim["spec"];
    let storage = amount(&spec["resources"]["requests"]["storage"]);
    put(taken, "requests.storage".to_owned(), storage);
    if let Some(class) = spec["storageClassName"]
        .as_str()
        .filter(|class| !class.is_empty())
    {
        let of = |what: &str| format!("{class}.storageclass.storage.k8s.io/{what}");
        put(taken, of("requests.storage"), storage);
        put(
            taken,
            of("persistentvolumeclaims"),
            Quantity::parse("1").ok(),
        );
    }
}

fn service(service: &Value, taken: &mut Amounts) {
    let spec = &service["spec"];
    let ports = items(spec, "ports").count();
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    let node_ports = match kind {
        "NodePort" => ports,
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] != false => ports,
        _ => 0,
    };
    let count = |number: usize| Quantity::parse(&number.to_string()).ok();
    put(taken, "services.nodeports".to_owned(), count(node_ports));
    if kind == "LoadBalancer" {
        put(taken, "services.loadbalancers".to_owned(), count(1));
    }
}

/// Whether a quota is about the object: its scopes are all those of the object. Scopes speak of pods only.
pub fn is_about(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let spec = &quota["spec"];
    let named = items(spec, "scopes").filter_map(|scope| Some((scope.as_str()?, None)));
    let selected = items(&spec["scopeSelector"], "matchExpressions")
        .filter_map(|rule| Some((rule["scopeName"].as_str()?, Some(rule))));
    let mut scopes = named.chain(selected).peekable();
    if scopes.peek().is_none() {
        return true;
    }
    (group, plural) == ("", "pods") && scopes.all(|(scope, rule)| has_scope(object, scope, rule))
}

fn has_scope(pod: &Value, scope: &str, rule: Option<&Value>) -> bool {
    let spec = &pod["spec"];
    let ends = spec["activeDeadlineSeconds"].is_number();
    let best_effort = crate::admit::is_best_effort(pod);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().unwrap_or("");
            let Some(rule) = rule else {
                return !class.is_empty();
            };
            let among = items(rule, "values").any(|value| value == class);
            match rule["operator"].as_str().unwrap_or("Exists") {
                "In" => among,
                "NotIn" => !among,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].iter().any(|which| {
            let terms = &spec["affinity"][which];
            items(terms, "requiredDuringSchedulingIgnoredDuringExecution")
                .any(|term| term["namespaces"].is_array() || term["namespaceSelector"].is_object())
        }),
        _ => false,
    }
}

/// What a quota limits.
pub fn hard(quota: &Value) -> Amounts {
    let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
    hard.filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
        .collect()
}

/// The part of some amounts that a quota limits, with zero for what is not there.
pub fn limited(quota: &Value, amounts: &Amounts) -> Amounts {
    let zero = Quantity::parse("0").ok();
    let of = |name: String| Some((name.clone(), amounts.get(&name).copied().or(zero)?));
    hard(quota).into_keys().filter_map(of).collect()
}

/// Adds what an object takes.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, own) in more {
        put(sum, name.clone(), Some(*own));
    }
}

/// The collections whose objects a quota counts, as (group, plural).
pub fn counted(quota: &Value) -> Vec<(String, String)> {
    let mut all = std::collections::BTreeSet::new();
    for name in hard(quota).into_keys() {
        if let Some(counted) = name.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            all.insert((group.to_owned(), plural.to_owned()));
        } else if name.contains("storage") && !name.contains("ephemeral")
            || name == "persistentvolumeclaims"
        {
            all.insert((String::new(), "persistentvolumeclaims".to_owned()));
        } else if name.starts_with("services") {
            all.insert((String::new(), "services".to_owned()));
        } else if matches!(
            name.as_str(),
            "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas"
        ) {
            all.insert((String::new(), name));
        } else {
            all.insert((String::new(), "pods".to_owned()));
        }
    }
    all.into_iter().collect()
}

/// Why a new object does not fit beside what is used, in upstream's words.
pub fn why_not(quota: &Value, object: &Value, taken: &Amounts, used: &Amounts) -> Option<String> {
    let name = quota["metadata"]["name"].as_str().unwrap_or("");
    let (hard, is_pod) = (hard(quota), taken.contains_key("pods"));
    if is_pod {
        let missing = unsaid(&hard, &object["spec"]);
        if !missing.is_empty() {
            return Some(format!(
                "failed quota: {name}: must specify {}",
                missing.join("; ")
            ));
        }
    }
    let over: Vec<(&String, &Quantity)> = hard
        .iter()
        .filter(|(name, most)| {
            let Some(own) = taken.get(*name).filter(|own| own.sign() > 0) else {
                return false;
            };
            used.get(*name).map_or(*own, |used| used.plus(own)) > **most
        })
        .collect();
    if over.is_empty() {
        return None;
    }
    let zero = || Quantity::parse("0").map_or_else(|_| String::new(), |zero| zero.to_string());
    let show = |of: &dyn Fn(&str) -> Option<String>| {
        let shown = over.iter().map(|(name, _)| {
            let amount = of(name).unwrap_or_else(zero);
            format!("{name}={amount}")
        });
        shown.collect::<Vec<_>>().join(",")
    };
    Some(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        show(&|name| taken.get(name).map(ToString::to_string)),
        show(&|name| used.get(name).map(ToString::to_string)),
        show(&|name| hard.get(name).map(ToString::to_string)),
    ))
}

/// What some container does not say though the quota counts it: `requests.cpu for: app,db`.
fn unsaid(hard: &Amounts, spec: &Value) -> Vec<String> {
    let compute = |name: &String| {
        let (field, resource) = name.split_once('.').unwrap_or(("requests", name));
        let known = matches!(resource, "cpu" | "memory") && matches!(field, "requests" | "limits");
        known.then(|| (field.to_owned(), resource.to_owned()))
    };
    let missing = |name: &String| {
        let (field, resource) = compute(name)?;
        let containers = items(spec, "containers").chain(items(spec, "initContainers"));
        let silent =
            containers.filter(|own| amount(&own["resources"][&field][&resource]).is_none());
        let names: Vec<&str> = silent.filter_map(|own| own["name"].as_str()).collect();
        (!names.is_empty()).then(|| format!("{name} for: {}", names.join(",")))
    };
    hard.keys().filter_map(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn quota(hard: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})
    }

    fn pod(requests: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}})
    }

    fn check(hard: Value, there: &[Value], new: &Value, expected: Option<&str>) {
        let quota = quota(hard);
        let mut used = Amounts::new();
        for object in there {
            add(&mut used, &taken("", "pods", object));
        }
        let said = why_not(
            &quota,
            new,
            &taken("", "pods", new),
            &limited(&quota, &used),
        );
        assert_eq!(said.as_deref(), expected);
    }

    #[test]
    fn one_more_fits_or_it_is_said_what_is_exceeded() {
        let own = pod(json!({"cpu": "500m"}));
        check(json!({"pods": "2"}), std::slice::from_ref(&own), &own, None);
        check(
            json!({"pods": "1"}),
            std::slice::from_ref(&own),
            &own,
            Some("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"),
        );
        check(
            json!({"requests.cpu": "900m"}),
            std::slice::from_ref(&own),
            &own,
            Some(
                "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=500m, limited: requests.cpu=900m",
            ),
        );
        check(
            json!({"limits.memory": "1Gi"}),
            &[],
            &own,
            Some("failed quota: q: must specify limits.memory for: c"),
        );
        let mut ended = own.clone();
        ended["status"] = json!({"phase": "Succeeded"});
        check(json!({"pods": "1"}), &[ended], &own, None);
    }

    #[test]
    fn claims_and_services_are_counted_by_what_they_ask_for() {
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
        let own = taken("", "persistentvolumeclaims", &claim);
        assert_eq!(own["requests.storage"].to_string(), "2Gi");
        assert_eq!(
            own["fast.storageclass.storage.k8s.io/requests.storage"].to_string(),
            "2Gi"
        );
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        let own = taken("", "services", &service);
        assert_eq!(own["services.nodeports"].to_string(), "2");
        assert_eq!(own["services.loadbalancers"].to_string(), "1");
        assert!(taken("apps", "deployments", &json!({})).contains_key("count/deployments.apps"));
    }

    #[test]
    fn scopes_choose_the_pods_that_count() {
        let scoped = |scope: &str| json!({"spec": {"scopes": [scope]}});
        let idle = json!({"spec": {"containers": [{"name": "c"}]}});
        assert!(is_about(&scoped("BestEffort"), "", "pods", &idle));
        assert!(!is_about(&scoped("NotBestEffort"), "", "pods", &idle));
        assert!(!is_about(&scoped("Terminating"), "", "pods", &idle));
        assert!(!is_about(&scoped("BestEffort"), "", "secrets", &json!({})));
    }
}
