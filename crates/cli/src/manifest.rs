//! Manifests: from files, folders and standard input to objects that the API server will understand.
//!
//! Everything is read and checked before anything is sent: a mistake in the last document leaves nothing half done.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::api::Target;
use crate::failure::Failure;

/// One object of a manifest, and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// Where it goes.
    pub(crate) target: Target,
    /// The object, as it was written.
    pub(crate) object: Value,
}

/// Reads every source in the order given; `namespace` is for objects that name none.
///
/// # Errors
/// Names the file, the document in it and what is wrong there.
pub(crate) fn read(sources: &[String], namespace: &str) -> Result<Vec<Manifest>, Failure> {
    let mut manifests = Vec::new();
    for source in sources {
        for (name, text) in texts(source)? {
            let parsed =
                parse(&text, namespace).map_err(|why| Failure::input(format!("{name}: {why}")))?;
            manifests.extend(parsed);
        }
    }
    if manifests.is_empty() && !sources.is_empty() {
        return Err(Failure::input(format!(
            "{} holds no object",
            sources.join(", ")
        )));
    }
    Ok(manifests)
}

/// The name and text of each file that a source stands for.
fn texts(source: &str) -> Result<Vec<(String, String)>, Failure> {
    if source == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|source| Failure::system("read manifests from standard input", source))?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let path = Path::new(source);
    let files = if path.is_dir() {
        files_of(path)?
    } else {
        vec![path.to_owned()]
    };
    files
        .iter()
        .map(|file| Ok((file.display().to_string(), text_of(file)?)))
        .collect()
}

fn text_of(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file)
        .map_err(|error| Failure::input(format!("could not read {}: {error}", file.display())))
}

/// The manifests of a folder, by name. Its folders are not entered, as with kubectl.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error| {
        Failure::input(format!(
            "could not read the folder {}: {error}",
            folder.display()
        ))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let known = path
            .extension()
            .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if known && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The objects of one text: YAML documents (JSON is YAML), lists taken apart.
fn parse(text: &str, namespace: &str) -> Result<Vec<Manifest>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| format!("this is not YAML: {error}"))?;
    let mut manifests = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        if document.is_null() {
            continue;
        }
        let objects = items(document);
        for object in objects {
            let manifest =
                check(object, namespace).map_err(|why| format!("document {}: {why}", index + 1))?;
            manifests.push(manifest);
        }
    }
    Ok(manifests)
}

/// The items of a `List`; anything else is itself.
fn items(mut document: Value) -> Vec<Value> {
    let is_list = document["kind"] == "List" && document["apiVersion"] == "v1";
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        Some(other) => {
            document["items"] = other;
            vec![document]
        }
        None => vec![document],
    }
}

/// What can be known to be wrong without asking the server.
fn check(object: Value, namespace: &str) -> Result<Manifest, String> {
    let word = |key: &str| {
        object
            .get(key)
            .and_then(Value::as_str)
            .filter(|word| !word.is_empty())
    };
    let (Some(api_version), Some(kind_word)) = (word("apiVersion"), word("kind")) else {
        return Err("an object needs apiVersion and kind".to_owned());
    };
    let kind = stead_schema::kind(api_version, kind_word).ok_or_else(|| {
        let served: BTreeSet<_> = stead_schema::kinds().map(|kind| kind.kind).collect();
        let served = Vec::from_iter(served);
        format!(
            "Stead does not serve {kind_word} of {api_version}; it serves {}",
            served.join(", ")
        )
    })?;
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| format!("this {kind_word} has no metadata.name"))?;
    let findings = stead_schema::check_types(api_version, kind_word, &object);
    if let Some(first) = findings.first() {
        return Err(format!("{kind_word} {name:?}: {first}"));
    }
    let own = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .filter(|own| !own.is_empty());
    let target = Target::all(kind, Some(own.unwrap_or(namespace))).named(name);
    Ok(Manifest { target, object })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        parse(text, "default").map(|all| all.iter().map(|one| one.target.display()).collect())
    }

    #[test]
    fn documents_and_lists_become_objects_in_order() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n\
                    - {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n- {apiVersion: v1, kind: Secret, metadata: {name: c}}\n";
        assert_eq!(
            names(text),
            Ok(vec![
                "service/a".into(),
                "configmap/b".into(),
                "secret/c".into()
            ])
        );
    }

    #[test]
    fn bad_input_is_named() {
        let wrong = |text: &str| names(text).unwrap_err();
        assert!(wrong("a: [").contains("not YAML"));
        assert!(wrong("kind: Pod").contains("apiVersion and kind"));
        assert!(
            wrong("{apiVersion: v9, kind: Castle, metadata: {name: a}}")
                .contains("does not serve Castle of v9")
        );
        assert!(wrong("{apiVersion: v1, kind: Pod}").contains("no metadata.name"));
        let unknown = wrong("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dota: {}}");
        assert!(
            unknown.contains("document 1: ConfigMap \"a\"") && unknown.contains("dota"),
            "{unknown}"
        );
    }

    #[test]
    fn an_object_without_a_namespace_gets_the_one_asked_for() {
        let all = parse(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}",
            "db",
        )
        .unwrap();
        assert_eq!(all[0].target.path(), "/api/v1/namespaces/db/configmaps/a");
    }
}
