//! The store as admission sees it: whole objects, parsed when asked for.

use serde_json::{Value, json};

use crate::admit::{Cluster, Context, ServiceRange};
use crate::handle::Scene;
use crate::store::{Table, View, key_of};

/// A view as admission's [`Cluster`].
pub(crate) struct ClusterView<'a> {
    view: &'a dyn View,
    assume_accounts: bool,
}

impl Cluster for ClusterView<'_> {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let stored = self
            .view
            .get(table(group, plural)?, &key_of(namespace, name));
        let assumed =
            self.assume_accounts && (group, plural, name) == ("", "serviceaccounts", "default");
        match stored {
            None if assumed => Some(
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}),
            ),
            stored => Some(stored?.value()),
        }
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Value> {
        let Some(table) = table(group, plural) else {
            return Vec::new();
        };
        let prefix = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        self.view
            .list(table, &prefix)
            .items
            .iter()
            .map(|(_, stored)| stored.value())
            .collect()
    }
}

fn table(group: &str, plural: &str) -> Option<Table> {
    stead_schema::kinds()
        .find(|kind| kind.group == group && kind.plural == plural)
        .map(crate::store::table_of)
}

impl<'v> Scene<'v> {
    /// The objects as admission sees them.
    pub(crate) fn cluster(&self) -> ClusterView<'v> {
        ClusterView {
            view: self.view,
            assume_accounts: self.environment.assume_accounts,
        }
    }

    /// What admission may look at in this request.
    pub(crate) fn admission<'a>(&'a self, cluster: &'a ClusterView<'a>) -> Context<'a> {
        Context {
            cluster,
            now: self.now,
            service_range: ServiceRange::parse(&self.environment.service_range).unwrap_or_default(),
        }
    }
}
