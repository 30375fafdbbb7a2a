//! Content negotiation: which shape and encoding an answer takes.

use crate::status::Status;

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Format {
    pub(crate) shape: Shape,
    pub(crate) yaml: bool,
}

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shape {
    /// The objects as they are.
    #[default]
    Whole,
    /// A Table of the asked version of meta.k8s.io.
    Table(&'static str),
    /// Only metadata, of one object.
    Partial(&'static str),
    /// Only metadata, of a list.
    PartialList(&'static str),
}

/// The shapes that an endpoint can answer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shapes {
    /// One object.
    Object,
    /// A list.
    List,
    /// Events of a watch.
    Watch,
    /// Neither Table nor metadata.
    Plain,
}

/// The first acceptable clause of an Accept header.
///
/// # Errors
/// 406 when there is none.
pub(crate) fn format(accept: &str, shapes: Shapes) -> Result<Format, Status> {
    if accept.trim().is_empty() {
        return Ok(Format::default());
    }
    accept
        .split(',')
        .find_map(|clause| clause_format(clause, shapes))
        .ok_or_else(Status::not_acceptable)
}

fn clause_format(clause: &str, shapes: Shapes) -> Option<Format> {
    let mut parts = clause.split(';').map(str::trim);
    let yaml = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "application/*" | "*/*" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for parameter in parts {
        match parameter.split_once('=')? {
            ("as", value) => kind = value,
            ("g", value) => group = value,
            ("v", value) => version = value,
            _ => {}
        }
    }
    if kind.is_empty() {
        return Some(Format {
            shape: Shape::Whole,
            yaml,
        });
    }
    let version = match (group, version) {
        ("meta.k8s.io", "v1") => "v1",
        ("meta.k8s.io", "v1beta1") => "v1beta1",
        _ => return None,
    };
    let shape = match (kind, shapes) {
        ("Table", Shapes::Object | Shapes::List | Shapes::Watch) => Shape::Table(version),
        ("PartialObjectMetadata", Shapes::Object | Shapes::Watch) => Shape::Partial(version),
        ("PartialObjectMetadataList", Shapes::List) => Shape::PartialList(version),
        _ => return None,
    };
    Some(Format { shape, yaml })
}
