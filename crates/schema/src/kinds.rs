//! The served kinds: resources with their verbs, names, subresources, columns, and the API groups.

use std::sync::LazyLock;

use crate::table::{Resource, split_group_version, table};

/// One top-level resource: a kind and how it is served.
#[derive(Debug)]
pub struct Kind {
    /// `` for the core group.
    pub group: &'static str,
    /// `v1`.
    pub version: &'static str,
    /// `StatefulSet`.
    pub kind: &'static str,
    /// `statefulsets`, as in paths.
    pub plural: &'static str,
    /// `statefulset`.
    pub singular: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// `sts`.
    pub short_names: &'static [&'static str],
    /// `all`, if `kubectl get all` lists it.
    pub categories: &'static [&'static str],
    /// `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`, as far as upstream serves them.
    pub verbs: &'static [&'static str],
    /// In the order of discovery.
    pub subresources: &'static [Subresource],
}

/// One subresource of a [`Kind`].
#[derive(Debug)]
pub struct Subresource {
    /// `status`.
    pub name: &'static str,
    /// The group of the kind that it takes and answers.
    pub group: &'static str,
    /// The version of that kind.
    pub version: &'static str,
    /// `Scale`, for instance.
    pub kind: &'static str,
    /// `get`, `patch`, `update`, `create`, ...
    pub verbs: &'static [&'static str],
}

/// One API group.
#[derive(Debug)]
pub struct Group {
    /// `` for the core group.
    pub name: &'static str,
    /// The version that clients should prefer.
    pub preferred: &'static str,
    /// All versions, the preferred one first.
    pub versions: &'static [&'static str],
}

/// One column of a server-printed Table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As printed, with spaces.
    pub name: &'static str,
    /// `string`, `integer`, `date`, ...
    pub column_type: &'static str,
    /// `name` for the column of names, otherwise empty.
    pub format: &'static str,
    /// 0 is always shown, 1 only by `-o wide`.
    pub priority: i32,
}

impl Kind {
    /// `apps/v1`, or `v1` in the core group: what objects carry as `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> String {
        join(self.group, self.version)
    }

    /// The subresource of this name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Group, version and plural.
type ResourceKey = (&'static str, &'static str, &'static str);

struct Index {
    kinds: Vec<Kind>,
    /// Positions in `kinds` by (group, version, kind).
    by_kind: Vec<u16>,
    /// Positions in `kinds` by (group, version, plural).
    by_plural: Vec<u16>,
    groups: Vec<Group>,
    /// By (group, version, plural).
    columns: Vec<(ResourceKey, Vec<Column>)>,
}

static INDEX: LazyLock<Index> = LazyLock::new(build);

/// Every top-level resource of the table whose type the table knows; a server decides which it serves.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    INDEX.kinds.iter()
}

/// The kind `kind` of `api_version` (`apps/v1`, or `v1` for the core group).
#[must_use]
pub fn kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = split_group_version(api_version);
    find(&INDEX.by_kind, |of| {
        (of.group, of.version, of.kind).cmp(&(group, version, kind))
    })
}

/// The kind served as `plural` in `group` and `version`.
#[must_use]
pub fn resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    find(&INDEX.by_plural, |of| {
        (of.group, of.version, of.plural).cmp(&(group, version, plural))
    })
}

fn find(order: &[u16], compare: impl Fn(&Kind) -> std::cmp::Ordering) -> Option<&'static Kind> {
    let at = order
        .binary_search_by(|at| {
            INDEX
                .kinds
                .get(usize::from(*at))
                .map_or(std::cmp::Ordering::Less, &compare)
        })
        .ok()?;
    INDEX.kinds.get(usize::from(*order.get(at)?))
}

/// All groups, the core group (named ``) first, then in upstream's order of discovery.
#[must_use]
pub fn groups() -> &'static [Group] {
    &INDEX.groups
}

/// Every (group, version), the core group first.
pub fn group_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    groups().iter().flat_map(|group| {
        group
            .versions
            .iter()
            .map(move |version| (group.name, *version))
    })
}

/// The columns of a resource's Table; Name and Age where upstream has none of its own.
#[must_use]
pub fn columns(group: &str, version: &str, plural: &str) -> &'static [Column] {
    let found = INDEX
        .columns
        .binary_search_by(|(key, _)| key.cmp(&(group, version, plural)));
    match found.ok().and_then(|at| INDEX.columns.get(at)) {
        Some((_, columns)) => columns,
        None => &PLAIN_COLUMNS,
    }
}

static PLAIN_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        column_type: "string",
        format: "name",
        priority: 0,
    },
    Column {
        name: "Created At",
        column_type: "date",
        format: "",
        priority: 0,
    },
];

fn build() -> Index {
    let table = table();
    let tops = table.resources.iter().filter(|of| !of.name.contains('/'));
    let kinds: Vec<Kind> = tops
        .filter(|of| table.of_kind(of.group_version, of.kind).is_some())
        .map(top)
        .collect();
    let mut columns: Vec<_> = table
        .columns
        .iter()
        .filter_map(|(name, of)| Some((resource_key(name)?, of.iter().map(column).collect())))
        .collect();
    columns.sort_unstable_by_key(|(key, _)| *key);
    Index {
        by_kind: order(&kinds, |of| (of.group, of.version, of.kind)),
        by_plural: order(&kinds, |of| (of.group, of.version, of.plural)),
        kinds,
        groups: build_groups(),
        columns,
    }
}

fn top(of: &'static Resource) -> Kind {
    let (group, version) = split_group_version(of.group_version);
    let of_ours = table()
        .resources
        .iter()
        .filter(|sub| sub.group_version == of.group_version);
    let subresources = of_ours
        .filter_map(|sub| subresource(of.name, sub))
        .collect::<Vec<_>>();
    Kind {
        group,
        version,
        kind: of.kind,
        plural: of.name,
        singular: of.singular,
        namespaced: of.namespaced,
        short_names: &of.short_names,
        categories: &of.categories,
        verbs: &of.verbs,
        // Built once and kept for the life of the process, as everything in the index.
        subresources: subresources.leak(),
    }
}

fn subresource(parent: &str, of: &'static Resource) -> Option<Subresource> {
    let (resource, name) = of.name.split_once('/')?;
    let (group, version) = split_group_version(of.kind_group_version);
    (resource == parent).then_some(Subresource {
        name,
        group,
        version,
        kind: of.kind,
        verbs: &of.verbs,
    })
}

fn order(
    kinds: &[Kind],
    key: impl Fn(&Kind) -> (&'static str, &'static str, &'static str),
) -> Vec<u16> {
    let mut order: Vec<u16> = (0..kinds.len())
        .filter_map(|at| u16::try_from(at).ok())
        .collect();
    order.sort_by_key(|at| key(&kinds[usize::from(*at)]));
    order
}

fn build_groups() -> Vec<Group> {
    let core = Group {
        name: "",
        preferred: "v1",
        versions: &["v1"],
    };
    let named = table()
        .groups
        .iter()
        .map(|(name, preferred, versions)| Group {
            name,
            preferred,
            versions,
        });
    std::iter::once(core).chain(named).collect()
}

/// `apps/v1/statefulsets` or `v1/pods`, taken apart.
fn resource_key(name: &'static str) -> Option<ResourceKey> {
    let (group_version, plural) = name.rsplit_once('/')?;
    let (group, version) = split_group_version(group_version);
    Some((group, version, plural))
}

fn column(of: &(&'static str, i32, &'static str, &'static str)) -> Column {
    let (column_type, priority, format, name) = *of;
    Column {
        name,
        column_type,
        format,
        priority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_found_by_kind_and_by_plural() {
        let set = kind("apps/v1", "StatefulSet").expect("it is in the table");
        assert_eq!(
            (
                set.plural,
                set.singular,
                set.namespaced,
                set.short_names,
                set.categories
            ),
            (
                "statefulsets",
                "statefulset",
                true,
                &["sts"][..],
                &["all"][..]
            )
        );
        assert!(std::ptr::eq(
            set,
            resource("apps", "v1", "statefulsets").expect("it is in the table")
        ));
        assert_eq!(set.api_version(), "apps/v1");
        assert!(resource("apps", "v1", "pods").is_none());
        for of in kinds() {
            assert!(std::ptr::eq(
                of,
                kind(&of.api_version(), of.kind).expect("each is found by its kind")
            ));
            assert!(std::ptr::eq(
                of,
                resource(of.group, of.version, of.plural).expect("each is found by its plural")
            ));
        }
    }

    #[test]
    fn a_scale_subresource_speaks_the_kind_of_its_own_group() {
        let scale = kind("apps/v1", "StatefulSet")
            .and_then(|of| of.subresource("scale"))
            .expect("sets scale");
        assert_eq!(
            (scale.group, scale.version, scale.kind, scale.verbs),
            (
                "autoscaling",
                "v1",
                "Scale",
                &["get", "patch", "update"][..]
            )
        );
    }

    #[test]
    fn columns_are_upstreams() {
        let names: Vec<_> = columns("apps", "v1", "statefulsets")
            .iter()
            .map(|column| (column.name, column.priority))
            .collect();
        assert_eq!(
            names,
            [
                ("Name", 0),
                ("Ready", 0),
                ("Age", 0),
                ("Containers", 1),
                ("Images", 1)
            ]
        );
        assert_eq!(columns("nobody.io", "v1", "things").len(), 2);
    }

    #[test]
    fn the_core_group_leads_and_autoscaling_prefers_v2() {
        assert_eq!(group_versions().next(), Some(("", "v1")));
        let autoscaling = groups()
            .iter()
            .find(|group| group.name == "autoscaling")
            .expect("it is in the table");
        assert_eq!(
            (autoscaling.preferred, autoscaling.versions),
            ("v2", &["v2", "v1"][..])
        );
    }
}
