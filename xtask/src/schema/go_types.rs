//! Reads Go's API types (struct fields and their json tags) into lines of facts.
//!
//! One line a type: its OpenAPI name without `io.k8s.`, then `field=GoType` or `field=GoType,omitempty,omitzero`
//! for each field; an embedded struct is `+=GoType`. Named scalar types get lines of their own, `Name = string`.

use std::path::{Path, PathBuf};

/// The packages that make up the served API, as folders below each module.
const PACKAGES: &[&str] = &[
    "admissionregistration/v1",
    "apps/v1",
    "authentication/v1",
    "authorization/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "batch/v1",
    "certificates/v1",
    "coordination/v1",
    "core/v1",
    "discovery/v1",
    "events/v1",
    "networking/v1",
    "node/v1",
    "policy/v1",
    "rbac/v1",
    "scheduling/v1",
    "storage/v1",
    "pkg/apis/meta/v1",
    "pkg/runtime",
    "pkg/version",
    "pkg/apis/apiextensions/v1",
];

/// Reads the modules unpacked in `dirs`; every package of the list must be in one of them.
pub(super) fn read(dirs: &[String]) -> Result<String, String> {
    let mut lines = Vec::new();
    for package in PACKAGES {
        let folder = dirs
            .iter()
            .map(|dir| Path::new(dir).join(package))
            .find(|folder| folder.is_dir());
        let folder = folder.ok_or_else(|| format!("none of the folders given holds {package}"))?;
        for file in go_files(&folder)? {
            let text = super::read(&file)?;
            lines.extend(types(&prefix(package, &folder), &text));
        }
    }
    lines.sort();
    lines.dedup();
    Ok(lines.join("\n") + "\n")
}

fn go_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder)
        .map_err(|e| format!("could not list {}: {e}", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| is_types_file(path))
        .collect();
    files.sort();
    Ok(files)
}

fn is_types_file(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.ends_with(".go")
        && (name.contains("types") || name == "register.go")
        && !name.contains("generated")
        && !name.contains("test")
}

fn prefix(package: &str, folder: &Path) -> String {
    let dotted = package.replace('/', ".");
    match package {
        _ if package.contains("apiextensions") => format!("apiextensions-apiserver.{dotted}"),
        _ if package.starts_with("pkg/") => format!("apimachinery.{dotted}"),
        _ => {
            debug_assert!(folder.ends_with(package));
            format!("api.{dotted}")
        }
    }
}

/// The struct and scalar types of one file.
fn types(prefix: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().map(str::trim) {
        match &mut open {
            None => {
                if let Some(name) = line
                    .strip_prefix("type ")
                    .and_then(|rest| rest.strip_suffix(" struct {"))
                {
                    open = Some(format!("{prefix}.{name}"));
                } else if let Some((name, "string" | "int32" | "int64" | "bool")) = line
                    .strip_prefix("type ")
                    .and_then(|rest| rest.split_once(' '))
                {
                    found.push(format!("{prefix}.{name} = scalar"));
                }
            }
            Some(_) if line == "}" => found.extend(open.take()),
            Some(fields) => {
                if let Some(fact) = field(line) {
                    fields.push(' ');
                    fields.push_str(&fact);
                }
            }
        }
    }
    found
}

/// `Name *int32 `json:"name,omitempty" ...`` becomes `name=*int32,omitempty`.
fn field(line: &str) -> Option<String> {
    if line.starts_with("//") {
        return None;
    }
    let (declared, tags) = line.split_once('`')?;
    let json = tags.split_once("json:\"")?.1.split('"').next()?;
    let mut words = declared.split_whitespace();
    let (first, second) = (words.next()?, words.next());
    let (name, options) = json.split_once(',').unwrap_or((json, ""));
    let go_type = second.unwrap_or(first);
    if name.is_empty() {
        return Some(format!("+={go_type}"));
    }
    let comma = if options.is_empty() { "" } else { "," };
    Some(format!("{name}={go_type}{comma}{options}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_become_lines_of_field_facts() {
        let text = "type Policy string\n\ntype Spec struct {\n\t// words\n\tReplicas *int32 `json:\"replicas,omitempty\" protobuf:\"x\"`\n\tName string `json:\"name\"`\n\tInner `json:\",inline\"`\n}\n";
        assert_eq!(
            types("api.x.v1", text),
            [
                "api.x.v1.Policy = scalar",
                "api.x.v1.Spec replicas=*int32,omitempty name=string +=Inner"
            ]
        );
    }
}
