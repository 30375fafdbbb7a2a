//! Who asks: the name and the groups that authentication found.

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// The user's name: a certificate's common name, or `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// The groups: a certificate's organisations, plus `system:authenticated`.
    pub groups: Vec<String>,
}

impl User {
    /// A user of these groups; `system:authenticated` is added.
    pub fn new(
        name: impl Into<String>,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        groups.push("system:authenticated".to_owned());
        Self {
            name: name.into(),
            groups,
        }
    }

    /// The cluster's administrator, member of `system:masters`.
    pub fn admin() -> Self {
        Self::new("admin", ["system:masters"])
    }

    /// One of the cluster's own controllers, for instance `statefulset-controller`.
    pub fn controller(name: &str) -> Self {
        Self::new(
            format!("system:serviceaccount:kube-system:{name}"),
            [
                "system:masters",
                "system:serviceaccounts",
                "system:serviceaccounts:kube-system",
            ],
        )
    }

    /// Somebody who has shown nothing.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }

    /// Whether the user belongs to the group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|have| have == group)
    }
}
