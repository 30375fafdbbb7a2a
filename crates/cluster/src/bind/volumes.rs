//! What a pod's claims mean to where it may run: those it must wait for, the volumes it is bound to, those that wait for it.

use std::sync::Arc;

use serde_json::Value;
use stead_controller::resource::{Key, is_terminating, list, text};

use crate::claims::{NO_PROVISIONER, best_match};
use crate::informer::Cache;

/// The caches that tell of claims.
pub(super) struct Volumes {
    pub(super) claims: Cache,
    pub(super) volumes: Cache,
    pub(super) classes: Cache,
}

/// The claims of a pod that keep it from no node by themselves.
#[derive(Default)]
pub(super) struct Found {
    /// The volumes that claims are bound to, or would be.
    pub(super) volumes: Vec<Value>,
    /// Claims that only one pod at a time may use.
    pub(super) exclusive: Vec<Key>,
    /// Claims that are bound only once the pod has a node.
    pub(super) choosing: Vec<Arc<Value>>,
    /// One of those will never be bound: nobody makes volumes of its class, and none is free.
    pub(super) none_free: bool,
}

/// Why a claim cannot be used yet.
pub(super) struct Unusable {
    pub(super) claim: Key,
    /// In the scheduler's words.
    pub(super) why: String,
    /// It may pass by itself, in a moment.
    pub(super) soon: bool,
}

impl Volumes {
    /// Looks at the claims of a pod, in order.
    ///
    /// # Errors
    /// The first that cannot be used yet.
    pub(super) fn of<'a>(
        &self,
        namespace: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Found, Unusable> {
        let mut found = Found::default();
        for name in names {
            self.look_at(&Key::new(namespace, name), &mut found)?;
        }
        Ok(found)
    }

    fn look_at(&self, key: &Key, found: &mut Found) -> Result<(), Unusable> {
        let name = &key.name;
        let unusable = |why: String, soon: bool| {
            Err(Unusable {
                claim: key.clone(),
                why,
                soon,
            })
        };
        let Some(claim) = self.claims.get(key) else {
            return unusable(format!("persistentvolumeclaim \"{name}\" not found"), true);
        };
        if is_terminating(&claim) {
            let why = format!("persistentvolumeclaim \"{name}\" is being deleted");
            return unusable(why, false);
        }
        if list(&claim, "/spec/accessModes").contains(&"ReadWriteOncePod".into()) {
            found.exclusive.push(key.clone());
        }
        let volume = text(&claim, "/spec/volumeName");
        match text(&claim, "/status/phase") {
            "Bound" => {
                let volume = self.volumes.get(&Key::new("", volume));
                found
                    .volumes
                    .extend(volume.map(|volume| Value::clone(&volume)));
                Ok(())
            }
            "Lost" => {
                let why = format!(
                    "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
                );
                unusable(why, false)
            }
            _ => match self.class_that_waits(&claim) {
                Some(class) => {
                    self.choose(claim, &class, found);
                    Ok(())
                }
                None => {
                    let why = "pod has unbound immediate PersistentVolumeClaims";
                    unusable(why.to_owned(), true)
                }
            },
        }
    }

    /// The claim's class, if its claims wait for their first consumer.
    fn class_that_waits(&self, claim: &Value) -> Option<Arc<Value>> {
        let class = Key::new("", text(claim, "/spec/storageClassName"));
        let class = self.classes.get(&class)?;
        (text(&class, "/volumeBindingMode") == "WaitForFirstConsumer").then_some(class)
    }

    fn choose(&self, claim: Arc<Value>, class: &Value, found: &mut Found) {
        let volumes = self.volumes.all();
        let best = best_match(&claim, volumes.iter().map(AsRef::as_ref));
        found.none_free |= best.is_none() && text(class, "/provisioner") == NO_PROVISIONER;
        found.volumes.extend(best.cloned());
        found.choosing.push(claim);
    }
}
