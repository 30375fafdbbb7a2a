//! ServiceAccount: every pod runs as an account that exists, with its token mounted unless it says no.

use serde_json::{Value, json};

use crate::admit::read::{dig, get, has, list, list_mut, map_mut, object_mut, text};
use crate::admit::{Context, Refusal};

const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour, and seven seconds that tell clients which do not renew their token.
const TOKEN_SECONDS: u32 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The letters of generated names.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Gives the pod its account, the account's token and the account's pull secrets.
pub(super) fn mount(pod: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    if has(dig(pod, &["metadata", "annotations"]), MIRROR) {
        return Ok(());
    }
    let name = account_name(pod);
    let namespace = text(get(pod, "metadata"), "namespace").to_owned();
    let Some(account) = context
        .cluster
        .get("", "serviceaccounts", &namespace, &name)
    else {
        return Err(Refusal::forbidden(format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        )));
    };
    if wants_token(get(pod, "spec"), &account) {
        mount_token(pod);
    }
    let secrets = list(&account, "imagePullSecrets").to_vec();
    if list(get(pod, "spec"), "imagePullSecrets").is_empty() && !secrets.is_empty() {
        map_mut(pod, "spec").insert("imagePullSecrets".to_owned(), secrets.into());
    }
    Ok(())
}

/// The account's name, said in both of the spec's fields.
fn account_name(pod: &mut Value) -> String {
    let said = text(get(pod, "spec"), "serviceAccountName");
    let name = if said.is_empty() { DEFAULT } else { said }.to_owned();
    let spec = map_mut(pod, "spec");
    spec.insert("serviceAccountName".to_owned(), name.clone().into());
    spec.insert("serviceAccount".to_owned(), name.clone().into());
    name
}

fn wants_token(spec: &Value, account: &Value) -> bool {
    let said = |object: &Value| get(object, "automountServiceAccountToken").as_bool();
    said(spec).or_else(|| said(account)).unwrap_or(true)
}

fn mount_token(pod: &mut Value) {
    let own = list(get(pod, "spec"), "volumes")
        .iter()
        .map(|volume| text(volume, "name"))
        .find(|name| name.starts_with(VOLUME_PREFIX));
    let (name, is_new) = match own {
        Some(name) => (name.to_owned(), false),
        None => (
            format!(
                "{VOLUME_PREFIX}{}",
                suffix(text(get(pod, "metadata"), "uid"))
            ),
            true,
        ),
    };
    let spec = object_mut(pod).entry("spec").or_insert_with(|| json!({}));
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        if !has(spec, field) {
            continue;
        }
        for container in list_mut(spec, field) {
            let has_own = list(container, "volumeMounts")
                .iter()
                .any(|mount| text(mount, "mountPath") == MOUNT_PATH);
            if !has_own {
                list_mut(container, "volumeMounts")
                    .push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                mounted = true;
            }
        }
    }
    if mounted && is_new {
        list_mut(spec, "volumes").push(volume(&name));
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        // The recorded server projects this one too; the cluster publishes it in every namespace beside the former.
        {"configMap": {"name": "openshift-service-ca.crt", "items": [{"key": "service-ca.crt", "path": "service-ca.crt"}]}},
    ]}})
}

/// Five letters from the pod's uid: as good as random, and the same again for the same pod.
fn suffix(uid: &str) -> String {
    let mut hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..5)
        .map(|_| {
            let letter = LETTERS[usize::try_from(hash % 27).unwrap_or(0)];
            hash /= 27;
            char::from(letter)
        })
        .collect()
}
