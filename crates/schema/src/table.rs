//! The table: `table.txt` parsed once into an index of types and their fields.
//!
//! The text is made by `cargo xtask schema` and embedded. Every line is one fact, words apart by one space:
//!
//! ```text
//! kubernetes 1.36
//! group NAME PREFERRED VERSION[,VERSION]
//! resource [GROUP/]VERSION NAME KIND [namespaced] [one=SINGULAR] [verbs=A,B] [short=A,B] [cat=A,B] [as=GROUP/VERSION]
//! columns [GROUP/]VERSION/NAME
//!  TYPE PRIORITY FORMAT-OR-DASH NAME WITH SPACES
//! type NAME [atomic] [GROUP,VERSION,KIND]...
//!  FIELD SHAPE [pNUMBER] [inline] [*] [o] [z] [g=GOTYPE] [r] [d=JSON] [e=ENUM] [m=MERGEKEY] [s=STRATEGY] [l=LISTTYPE] [k=KEYS] [M=MAPTYPE]
//! ```
//!
//! NAME of a type is OpenAPI's without `io.k8s.`; SHAPE is a scalar, a leaf type, a type's name, `[]SHAPE` or
//! `{}SHAPE`; `pNUMBER` the protobuf number; `*` a pointer in Go, `o` omitempty, `z` omitzero, `r` required.
//! Types and fields are sorted by name.

use std::sync::LazyLock;

const TEXT: &str = include_str!("table.txt");

/// Kinds of apimachinery that are registered in every group and version.
const OPTIONS: [&str; 7] = [
    "DeleteOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
    "GetOptions",
    "ListOptions",
    "WatchEvent",
];

/// Index of a type in [`Table::types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeId(u16);

/// A JSON value with rules of its own, though one type in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// Any JSON object (`runtime.RawExtension`).
    Raw,
    FieldsV1,
    /// Any JSON value (CRD defaults and examples).
    Json,
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrStrings,
}

/// What a field or an element holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Leaf(Leaf),
    Struct(TypeId),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// How server-side apply sees a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map,
}

/// One field of a type; see the module for the meaning of each mark.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// The protobuf number; 0 if the field has none of its own.
    pub(crate) proto: u32,
    /// A protobuf message whose fields stand directly in the JSON object; not a JSON field itself.
    pub(crate) inline: bool,
    pub(crate) pointer: bool,
    pub(crate) omitempty: bool,
    pub(crate) omitzero: bool,
    pub(crate) required: bool,
    /// JSON text of a default that OpenAPI names and that is not Go's zero value.
    pub(crate) default: Option<&'static str>,
    /// The name of the Go type where it is not the plain one.
    pub(crate) go_type: &'static str,
    pub(crate) merge_key: &'static str,
    pub(crate) patch_strategy: &'static str,
    pub(crate) list_type: Option<ListType>,
    list_keys: &'static str,
    pub(crate) map_atomic: Option<bool>,
}

impl Field {
    /// Whether Go's encoder writes the field although it holds its zero value.
    pub(crate) fn zero_is_written(&self) -> bool {
        if self.inline || self.omitzero {
            return false;
        }
        // omitempty has no effect on a struct that is no pointer.
        let is_struct = matches!(self.shape, Shape::Struct(_))
            || matches!(
                self.shape,
                Shape::Leaf(
                    Leaf::Quantity
                        | Leaf::IntOrString
                        | Leaf::Time
                        | Leaf::MicroTime
                        | Leaf::Raw
                        | Leaf::Json
                )
            );
        !self.omitempty || is_struct && !self.pointer
    }

    /// The keys of a list of type map.
    pub(crate) fn list_keys(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.list_keys.split(',').filter(|key| !key.is_empty())
    }

    /// Whether a patch merges the list by elements (`merge`).
    pub(crate) fn merges(&self) -> bool {
        self.patch_strategy.split(',').any(|word| word == "merge")
    }
}

/// One type and its fields, sorted by name.
#[derive(Debug)]
pub(crate) struct Type {
    /// OpenAPI's name without `io.k8s.`.
    pub(crate) name: &'static str,
    pub(crate) atomic: bool,
    /// (group, version, kind) of types that are kinds.
    pub(crate) kinds: Vec<(&'static str, &'static str, &'static str)>,
    pub(crate) fields: Vec<Field>,
    /// Positions of the fields that Go's encoder always writes.
    always: Vec<u8>,
    /// Positions of the fields that have a protobuf number, by number.
    by_number: Vec<u8>,
    /// Positions of the fields that have a default of their own.
    defaulted: Vec<u8>,
}

impl Type {
    /// The fields that Go's encoder writes even when they hold their zero value.
    pub(crate) fn always_written(&self) -> impl Iterator<Item = &Field> {
        self.always
            .iter()
            .filter_map(|at| self.fields.get(usize::from(*at)))
    }

    /// The fields with a default that the table states.
    pub(crate) fn defaulted(&self) -> impl Iterator<Item = &Field> {
        self.defaulted
            .iter()
            .filter_map(|at| self.fields.get(usize::from(*at)))
    }

    /// The field with this protobuf number.
    pub(crate) fn numbered(&self, number: u32) -> Option<&Field> {
        let field = |at: &u8| self.fields.get(usize::from(*at));
        let at = self
            .by_number
            .binary_search_by_key(&number, |at| field(at).map_or(0, |field| field.proto))
            .ok()?;
        field(self.by_number.get(at)?)
    }

    /// The field with this JSON name.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        let at = self
            .fields
            .binary_search_by(|field| field.name.cmp(name))
            .ok()?;
        self.fields.get(at).filter(|field| !field.inline)
    }

    /// The fields that JSON objects have.
    pub(crate) fn json_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.inline)
    }

    /// The protobuf messages whose fields stand directly in the JSON object.
    pub(crate) fn inlined(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.inline)
    }

    /// The last part of the name, which is Go's.
    pub(crate) fn go_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// One `resource` line.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group_version: &'static str,
    /// With `/subresource` if it is one.
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) singular: &'static str,
    pub(crate) verbs: Vec<&'static str>,
    pub(crate) short_names: Vec<&'static str>,
    pub(crate) categories: Vec<&'static str>,
    /// The group and version of the kind where they are not those of the resource.
    pub(crate) kind_group_version: &'static str,
}

/// One `columns` paragraph: the resource as `group/version/name`, then (type, priority, format, name) of each.
pub(crate) type ColumnsOf = (
    &'static str,
    Vec<(&'static str, i32, &'static str, &'static str)>,
);

/// All facts.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) kubernetes: &'static str,
    /// (name, preferred version, versions).
    pub(crate) groups: Vec<(&'static str, &'static str, Vec<&'static str>)>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) columns: Vec<ColumnsOf>,
    pub(crate) types: Vec<Type>,
    /// ((group, version, kind), type), sorted.
    by_kind: Vec<((&'static str, &'static str, &'static str), TypeId)>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| parse(TEXT));

/// The table, parsed at first use.
pub(crate) fn table() -> &'static Table {
    &TABLE
}

impl Table {
    /// The type with this index; indices come only from this table.
    pub(crate) fn of(&self, id: TypeId) -> &Type {
        &self.types[usize::from(id.0)]
    }

    /// The type with this name (OpenAPI's without `io.k8s.`).
    pub(crate) fn named(&self, name: &str) -> Option<TypeId> {
        index(&self.types, name)
    }

    /// The type of objects of this kind.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        let (group, version) = split_group_version(api_version);
        let exact = self.of_exact_kind(group, version, kind);
        // The options of verbs belong to every group and version.
        exact.or_else(|| {
            if OPTIONS.contains(&kind) {
                self.of_exact_kind("", "v1", kind)
            } else {
                None
            }
        })
    }

    fn of_exact_kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        let at = self
            .by_kind
            .binary_search_by(|(key, _)| key.cmp(&(group, version, kind)))
            .ok()?;
        self.by_kind.get(at).map(|(_, id)| *id)
    }
}

/// `apps/v1` is (`apps`, `v1`); `v1` is (``, `v1`).
pub(crate) fn split_group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn index(types: &[Type], name: &str) -> Option<TypeId> {
    let at = types.binary_search_by(|of| of.name.cmp(name)).ok()?;
    u16::try_from(at).ok().map(TypeId)
}

/// Parses the text; lines that are not understood are left out (a test shows that there are none).
fn parse(text: &'static str) -> Table {
    let mut table = Table::default();
    let mut names: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    let mut in_columns = false;
    for line in text.lines() {
        if let Some(detail) = line.strip_prefix(' ') {
            if in_columns {
                push_column(&mut table, detail);
            } else if let Some((_, fields)) = names.last_mut() {
                fields.push(detail);
            }
            continue;
        }
        in_columns = false;
        match line.split_once(' ') {
            Some(("kubernetes", version)) => table.kubernetes = version,
            Some(("group", rest)) => table.groups.extend(parse_group(rest)),
            Some(("resource", rest)) => table.resources.extend(parse_resource(rest)),
            Some(("columns", name)) => {
                in_columns = true;
                table.columns.push((name, Vec::new()));
            }
            Some(("type", rest)) => names.push((rest, Vec::new())),
            Some(_) | None => {}
        }
    }
    fill_types(&mut table, &names);
    table
}

fn push_column(table: &mut Table, detail: &'static str) {
    let mut words = detail.splitn(4, ' ');
    if let (Some(of), Some(priority), Some(format), Some(name)) =
        (words.next(), words.next(), words.next(), words.next())
        && let Some((_, columns)) = table.columns.last_mut()
    {
        let format = if format == "-" { "" } else { format };
        columns.push((of, priority.parse().unwrap_or_default(), format, name));
    }
}

fn parse_group(rest: &'static str) -> Option<(&'static str, &'static str, Vec<&'static str>)> {
    let mut words = rest.split(' ');
    Some((words.next()?, words.next()?, list(words.next()?)))
}

fn list(words: &'static str) -> Vec<&'static str> {
    words.split(',').filter(|word| !word.is_empty()).collect()
}

fn parse_resource(rest: &'static str) -> Option<Resource> {
    let mut words = rest.split(' ');
    let (group_version, name, kind) = (words.next()?, words.next()?, words.next()?);
    let mut resource = Resource {
        group_version,
        name,
        kind,
        namespaced: false,
        singular: "",
        verbs: Vec::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        kind_group_version: group_version,
    };
    for word in words {
        match word.split_once('=') {
            None => resource.namespaced = true,
            Some(("one", value)) => resource.singular = value,
            Some(("verbs", value)) => resource.verbs = list(value),
            Some(("short", value)) => resource.short_names = list(value),
            Some(("cat", value)) => resource.categories = list(value),
            Some(("as", value)) => resource.kind_group_version = value,
            Some(_) => {}
        }
    }
    Some(resource)
}

/// Two passes: all names first, then the fields, which refer to types by name.
fn fill_types(table: &mut Table, lines: &[(&'static str, Vec<&'static str>)]) {
    for (head, _) in lines {
        let mut words = head.split(' ');
        let name = words.next().unwrap_or_default();
        let mut of = Type {
            name,
            atomic: false,
            kinds: Vec::new(),
            fields: Vec::new(),
            always: Vec::new(),
            defaulted: Vec::new(),
            by_number: Vec::new(),
        };
        for word in words {
            let mut parts = word.split(',');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(group), Some(version), Some(kind)) => of.kinds.push((group, version, kind)),
                _ => of.atomic = word == "atomic",
            }
        }
        table.types.push(of);
    }
    for (at, (_, fields)) in lines.iter().enumerate() {
        let mut parsed: Vec<Field> = fields
            .iter()
            .filter_map(|line| parse_field(&table.types, line))
            .collect();
        parsed.sort_by_key(|field| field.name);
        parsed.shrink_to_fit();
        table.types[at].always = positions(&parsed, Field::zero_is_written);
        let mut by_number = positions(&parsed, |field| field.proto > 0);
        by_number.sort_by_key(|at| parsed[usize::from(*at)].proto);
        table.types[at].by_number = by_number;
        table.types[at].defaulted =
            positions(&parsed, |field| field.default.is_some() && !field.inline);
        table.types[at].fields = parsed;
    }
    let kinds = table
        .types
        .iter()
        .enumerate()
        .flat_map(|(at, of)| of.kinds.iter().map(move |kind| (*kind, at)));
    table.by_kind = kinds
        .filter_map(|(kind, at)| Some((kind, TypeId(u16::try_from(at).ok()?))))
        .collect();
    table.by_kind.sort_unstable();
}

fn positions(fields: &[Field], of: impl Fn(&Field) -> bool) -> Vec<u8> {
    let found = fields.iter().enumerate().filter(|(_, field)| of(field));
    found.filter_map(|(at, _)| u8::try_from(at).ok()).collect()
}

fn parse_field(types: &[Type], line: &'static str) -> Option<Field> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let shape = parse_shape(types, words.next()?)?;
    let mut field = Field {
        name,
        shape,
        proto: 0,
        inline: false,
        pointer: false,
        omitempty: false,
        omitzero: false,
        required: false,
        default: None,
        go_type: "",
        merge_key: "",
        patch_strategy: "",
        list_type: None,
        list_keys: "",
        map_atomic: None,
    };
    for word in words {
        mark(&mut field, word);
    }
    Some(field)
}

fn mark(field: &mut Field, word: &'static str) {
    match word {
        "inline" => field.inline = true,
        "*" => field.pointer = true,
        "o" => field.omitempty = true,
        "z" => field.omitzero = true,
        "r" => field.required = true,
        _ => match word.split_once('=') {
            Some(("d", json)) => field.default = Some(json),
            Some(("g", name)) => field.go_type = name,
            Some(("m", key)) => field.merge_key = key,
            Some(("s", strategy)) => field.patch_strategy = strategy,
            Some(("l", "atomic")) => field.list_type = Some(ListType::Atomic),
            Some(("l", "set")) => field.list_type = Some(ListType::Set),
            Some(("l", "map")) => field.list_type = Some(ListType::Map),
            Some(("k", keys)) => field.list_keys = keys,
            Some(("M", of)) => field.map_atomic = Some(of == "atomic"),
            Some(_) => {}
            None => {
                field.proto = word
                    .strip_prefix('p')
                    .and_then(|number| number.parse().ok())
                    .unwrap_or_default()
            }
        },
    }
}

fn parse_shape(types: &[Type], word: &str) -> Option<Shape> {
    if let Some(of) = word.strip_prefix("[]") {
        return parse_shape(types, of).map(|of| Shape::List(Box::new(of)));
    }
    if let Some(of) = word.strip_prefix("{}") {
        return parse_shape(types, of).map(|of| Shape::Map(Box::new(of)));
    }
    let leaf = match word {
        "string" => Leaf::String,
        "bytes" => Leaf::Bytes,
        "bool" => Leaf::Bool,
        "int32" => Leaf::Int32,
        "int64" => Leaf::Int64,
        "double" => Leaf::Double,
        "quantity" => Leaf::Quantity,
        "intorstring" => Leaf::IntOrString,
        "time" => Leaf::Time,
        "microtime" => Leaf::MicroTime,
        "raw" => Leaf::Raw,
        "fieldsv1" => Leaf::FieldsV1,
        "json" => Leaf::Json,
        "schemaorarray" => Leaf::SchemaOrArray,
        "schemaorbool" => Leaf::SchemaOrBool,
        "schemaorstrings" => Leaf::SchemaOrStrings,
        name => return index(types, name).map(Shape::Struct),
    };
    Some(Shape::Leaf(leaf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_text_is_understood() {
        let lines = TEXT.lines().filter(|line| !line.starts_with('#')).count();
        let table = table();
        let columns: usize = table
            .columns
            .iter()
            .map(|(_, columns)| columns.len() + 1)
            .sum();
        let fields: usize = table.types.iter().map(|of| of.fields.len() + 1).sum();
        assert_eq!(
            lines,
            1 + table.groups.len() + table.resources.len() + columns + fields
        );
        assert!(
            table.types.is_sorted_by_key(|of| of.name),
            "types are looked up by binary search"
        );
    }

    #[test]
    fn a_kind_leads_to_its_fields() {
        let table = table();
        let set = table.of(table
            .of_kind("apps/v1", "StatefulSet")
            .expect("it is in the table"));
        let Some(Shape::Struct(spec)) = set.field("spec").map(|field| &field.shape) else {
            panic!("spec is a struct")
        };
        let replicas = table
            .of(*spec)
            .field("replicas")
            .expect("a spec has replicas");
        assert_eq!(
            (replicas.proto, replicas.pointer, &replicas.shape),
            (1, true, &Shape::Leaf(Leaf::Int32))
        );
        assert_eq!(table.of_kind("apps/v2", "StatefulSet"), None);
    }

    #[test]
    fn lists_know_their_keys_and_strategies() {
        let table = table();
        let container = table.of(table
            .named("api.core.v1.Container")
            .expect("it is in the table"));
        let ports = container.field("ports").expect("containers have ports");
        assert_eq!(
            ports.list_keys().collect::<Vec<_>>(),
            ["containerPort", "protocol"]
        );
        assert_eq!(
            (ports.merge_key, ports.merges(), ports.list_type),
            ("containerPort", true, Some(ListType::Map))
        );
    }
}
