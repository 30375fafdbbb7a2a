//! What a person sees of a StatefulSet: one line an ordinal, from the objects alone. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// One StatefulSet and its ordinals.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetPicture {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `spec.replicas`.
    pub(crate) wanted: u64,
    /// Ordinals that are Ready, of the revision wanted.
    pub(crate) ready: u64,
    /// A change of the set is not seen yet, or not rolled out as far as its strategy goes.
    pub(crate) updating: bool,
    pub(crate) ordinals: Vec<OrdinalPicture>,
    /// Why nothing more happens now: the controller's own sentences.
    pub(crate) waits_for: Vec<String>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrdinalPicture {
    /// Name of the pod.
    pub(crate) pod: String,
    pub(crate) phase: OrdinalPhase,
    /// What the phase alone does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// Claims, and whether each is bound.
    pub(crate) claims: BTreeMap<String, bool>,
    pub(crate) restarts: u64,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum OrdinalPhase {
    /// It has no pod yet.
    Waiting,
    /// Its pod is there and not Ready.
    Starting,
    Ready,
    Stopping,
}

impl OrdinalPhase {
    pub(crate) fn word(self) -> &'static str {
        match self {
            OrdinalPhase::Waiting => "waiting",
            OrdinalPhase::Starting => "starting",
            OrdinalPhase::Ready => "ready",
            OrdinalPhase::Stopping => "stopping",
        }
    }
}

impl SetPicture {
    /// Whether every ordinal that is wanted is ready, of the template wanted, and none too many is left.
    pub(crate) fn is_complete(&self) -> bool {
        !self.updating && self.ready == self.wanted && self.ordinals.len() as u64 == self.wanted
    }
}

/// Draws a set. `pods` and `claims` are those of its namespace; `waits_for` comes from the controller's decision.
pub(crate) fn draw(
    set: &Value,
    pods: &[Value],
    claims: &[Value],
    waits_for: Vec<String>,
) -> SetPicture {
    let name = text(set, "/metadata/name");
    let wanted = number(set, "/spec/replicas").unwrap_or(1);
    let start = number(set, "/spec/ordinals/start").unwrap_or(0);
    let uid = text(set, "/metadata/uid");
    let mine: BTreeMap<u64, &Value> = pods
        .iter()
        .filter(|pod| is_owned_by(pod, uid))
        .filter_map(|pod| Some((ordinal(pod, name)?, pod)))
        .collect();
    let wanted_ordinals = start..start.saturating_add(wanted);
    let extra = mine
        .keys()
        .copied()
        .filter(|ordinal| !wanted_ordinals.contains(ordinal));
    // What has a pod is shown; of what has none, no more lines than a screen can hold.
    let shown = wanted_ordinals
        .clone()
        .filter(|ordinal| mine.contains_key(ordinal) || ordinal - start < 20);
    let mut numbers: Vec<u64> = shown.chain(extra).collect();
    numbers.sort_unstable();
    let ordinals: Vec<_> = numbers
        .iter()
        .map(|ordinal| draw_ordinal(name, *ordinal, mine.get(ordinal).copied(), claims))
        .collect();
    let ready = mine.iter().filter(|(ordinal, pod)| {
        wanted_ordinals.contains(ordinal) && phase(pod) == OrdinalPhase::Ready
    });
    SetPicture {
        namespace: text(set, "/metadata/namespace").to_owned(),
        name: name.to_owned(),
        wanted,
        ready: ready.count() as u64,
        updating: is_updating(set, wanted),
        ordinals,
        waits_for,
    }
}

/// What `kubectl rollout status` waits for, but for readiness: the controller has seen the set, and as many replicas as the
/// strategy updates by itself are of the update revision.
fn is_updating(set: &Value, wanted: u64) -> bool {
    let generation = number(set, "/metadata/generation");
    if number(set, "/status/observedGeneration") < generation {
        return true;
    }
    if text(set, "/spec/updateStrategy/type") == "OnDelete"
        || text(set, "/status/updateRevision").is_empty()
    {
        return false;
    }
    let partition = number(set, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    let updated = number(set, "/status/updatedReplicas").unwrap_or(0);
    updated < wanted.saturating_sub(partition)
}

fn draw_ordinal(set: &str, ordinal: u64, pod: Option<&Value>, claims: &[Value]) -> OrdinalPicture {
    let name = format!("{set}-{ordinal}");
    let bound = |claim: &Value| {
        (
            text(claim, "/metadata/name").to_owned(),
            text(claim, "/status/phase") == "Bound",
        )
    };
    let suffix = format!("-{name}");
    let claims = match pod {
        Some(pod) => {
            let wanted = claims_of(pod);
            claims
                .iter()
                .filter(|claim| wanted.contains(&text(claim, "/metadata/name")))
                .map(bound)
                .collect()
        }
        None => claims
            .iter()
            .filter(|claim| text(claim, "/metadata/name").ends_with(&suffix))
            .map(bound)
            .collect(),
    };
    OrdinalPicture {
        phase: pod.map_or(OrdinalPhase::Waiting, phase),
        because: pod.and_then(reason),
        address: pod
            .map(|pod| text(pod, "/status/podIP").to_owned())
            .filter(|address| !address.is_empty()),
        restarts: pod.map_or(0, restarts),
        pod: name,
        claims,
    }
}

fn phase(pod: &Value) -> OrdinalPhase {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        OrdinalPhase::Stopping
    } else if is_ready(pod) {
        OrdinalPhase::Ready
    } else {
        OrdinalPhase::Starting
    }
}

/// Whether the pod's condition Ready is True.
fn is_ready(pod: &Value) -> bool {
    conditions(pod).any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The most telling thing that the pod's status says about not being ready.
fn reason(pod: &Value) -> Option<String> {
    if is_ready(pod) {
        return None;
    }
    let unscheduled = conditions(pod)
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
        .map(|condition| text(condition, "/message").to_owned());
    unscheduled
        .or_else(|| statuses(pod).find_map(container_reason))
        .filter(|why| !why.is_empty())
}

/// Why a container does not run. `ContainerCreating` is no reason: it is what starting looks like.
fn container_reason(status: &Value) -> Option<String> {
    let state = status.get("state")?;
    let told = state.get("waiting").or_else(|| state.get("terminated"))?;
    let word = text(told, "/reason");
    if word.is_empty() || word == "ContainerCreating" || word == "PodInitializing" {
        return None;
    }
    let message = text(told, "/message");
    Some(if message.is_empty() {
        word.to_owned()
    } else {
        format!("{word}: {message}")
    })
}

fn restarts(pod: &Value) -> u64 {
    statuses(pod)
        .filter_map(|status| status["restartCount"].as_u64())
        .sum()
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    lists
        .into_iter()
        .filter_map(|list| pod.pointer(list)?.as_array())
        .flatten()
}

fn conditions(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn claims_of(pod: &Value) -> Vec<&str> {
    let volumes = pod
        .pointer("/spec/volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    volumes
        .filter_map(|volume| volume.pointer("/persistentVolumeClaim/claimName")?.as_str())
        .collect()
}

fn is_owned_by(pod: &Value, uid: &str) -> bool {
    let owners = pod
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    owners
        .into_iter()
        .any(|owner| owner["uid"] == uid && owner["controller"] == true)
}

fn ordinal(pod: &Value, set: &str) -> Option<u64> {
    text(pod, "/metadata/name")
        .strip_prefix(set)?
        .strip_prefix('-')?
        .parse()
        .ok()
}

/// A string in an object; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: u64) -> Value {
        json!({"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": {"replicas": replicas}})
    }

    fn pod(ordinal: u64, ready: &str, more: &Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": format!("web-{ordinal}"), "ownerReferences": [{"uid": "u", "controller": true}]},
            "spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": format!("data-web-{ordinal}")}}]},
            "status": {"podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": ready}]},
        });
        json_patch::merge(&mut pod, more);
        pod
    }

    fn told(picture: &SetPicture) -> Vec<String> {
        let line = |ordinal: &OrdinalPicture| {
            let because = ordinal
                .because
                .as_deref()
                .map(|why| format!(" ({why})"))
                .unwrap_or_default();
            format!("{} {}{because}", ordinal.pod, ordinal.phase.word())
        };
        picture.ordinals.iter().map(line).collect()
    }

    #[test]
    fn each_ordinal_is_told_with_its_phase() {
        let stopping = pod(
            1,
            "True",
            &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        );
        let picture = draw(
            &set(3),
            &[pod(0, "True", &json!({})), stopping],
            &[],
            vec![],
        );
        assert_eq!(
            told(&picture),
            ["web-0 ready", "web-1 stopping", "web-2 waiting"]
        );
        assert!(!picture.is_complete());
        assert_eq!(picture.ready, 1);
    }

    #[test]
    fn a_set_is_complete_only_when_its_change_is_rolled_out() {
        let pods = [pod(0, "True", &json!({})), pod(1, "True", &json!({}))];
        let complete = |more: Value| {
            let mut set = set(2);
            json_patch::merge(&mut set, &more);
            draw(&set, &pods, &[], vec![]).is_complete()
        };
        let status = |seen: u64, updated: u64| json!({"observedGeneration": seen, "updateRevision": "web-2", "updatedReplicas": updated});
        let generation = json!({"generation": 2});
        assert!(!complete(
            json!({"metadata": generation, "status": status(1, 2)})
        ));
        assert!(!complete(
            json!({"metadata": generation, "status": status(2, 1)})
        ));
        assert!(complete(
            json!({"metadata": generation, "status": status(2, 2)})
        ));
        let partition = json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}});
        assert!(complete(json!({"spec": partition, "status": status(2, 1)})));
        let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
        assert!(complete(json!({"spec": on_delete, "status": status(2, 0)})));
    }

    #[test]
    fn a_set_is_complete_when_all_are_ready_and_none_too_many() {
        let pods = [pod(0, "True", &json!({})), pod(1, "True", &json!({}))];
        assert!(draw(&set(2), &pods, &[], vec![]).is_complete());
        assert!(!draw(&set(1), &pods, &[], vec![]).is_complete());
        assert!(draw(&set(0), &[], &[], vec![]).is_complete());
    }

    #[test]
    fn the_reason_is_the_most_telling_one() {
        let crash = json!({"status": {"containerStatuses": [{"restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}}]}});
        let picture = draw(&set(1), &[pod(0, "False", &crash)], &[], vec![]);
        assert_eq!(
            told(&picture),
            ["web-0 starting (CrashLoopBackOff: back-off 40s)"]
        );
        assert_eq!(picture.ordinals[0].restarts, 4);
    }

    #[test]
    fn strangers_are_not_shown_and_claims_are() {
        let stranger = pod(
            0,
            "True",
            &json!({"metadata": {"ownerReferences": [{"uid": "other", "controller": true}]}}),
        );
        let claim = json!({"metadata": {"name": "data-web-0"}, "status": {"phase": "Bound"}});
        let picture = draw(&set(1), &[stranger], &[claim], vec![]);
        assert_eq!(told(&picture), ["web-0 waiting"]);
        assert_eq!(
            picture.ordinals[0].claims,
            BTreeMap::from([("data-web-0".to_owned(), true)])
        );
    }

    #[test]
    fn ten_thousand_waiting_ordinals_do_not_fill_the_screen() {
        assert_eq!(draw(&set(10_000), &[], &[], vec![]).ordinals.len(), 20);
    }
}
