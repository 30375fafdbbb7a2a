//! `stead get`: objects as the server prints them, or whole for programs.

use std::process::ExitCode;

use serde_json::Value;

use crate::api::{Api, Target, encode, kind_and_name, refused};
use crate::args::{Get, Output};
use crate::failure::Failure;
use crate::picture::text;
use crate::place::Place;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Prints one object or a collection.
pub(crate) async fn run(args: Get, place: &Place) -> Result<ExitCode, Failure> {
    let (kind, inline_name) = kind_and_name(&args.kind)?;
    let name = inline_name.or(args.name);
    if name.is_some() && args.scope.all_namespaces && kind.namespaced {
        return Err(Failure::input(
            "a name and all namespaces do not go together; name the namespace with -n",
        ));
    }
    let api = place.connect().await?;
    let target = Target {
        name,
        ..Target::all(kind, args.scope.namespace())
    };
    let query = args
        .selector
        .map(|selector| format!("?labelSelector={}", encode(&selector)))
        .unwrap_or_default();
    match args.output {
        None | Some(Output::Wide) => {
            print_table(&api, &target, &query, &args.scope, args.output).await?
        }
        Some(Output::Json | Output::Yaml) => {
            print_object(
                &fetch(&api, &target, &query, "application/json").await?,
                args.output,
            )?;
        }
        Some(Output::Name) => {
            let answer = fetch(&api, &target, &query, "application/json").await?;
            for object in answer["items"].as_array().unwrap_or(&vec![answer.clone()]) {
                println!("{}", target.named(text(object, "/metadata/name")).display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an object whole.
pub(crate) fn print_object(object: &Value, output: Option<Output>) -> Result<(), Failure> {
    if output == Some(Output::Yaml) {
        let yaml = serde_saphyr::to_string(object)
            .map_err(|error| Failure::caused("could not write YAML", &error))?;
        print!("---\n{yaml}");
    } else {
        println!("{object:#}");
    }
    Ok(())
}

async fn fetch(api: &Api, target: &Target, query: &str, accept: &str) -> Result<Value, Failure> {
    let path = target.path() + query;
    let request = http::Request::get(&path)
        .header("accept", accept)
        .body(Vec::new());
    let request =
        request.map_err(|error| Failure::caused(&format!("{path:?} makes no request"), &error))?;
    api.client
        .request(request)
        .await
        .map_err(|error| refused(&format!("get {}", target.display()), &error))
}

async fn print_table(
    api: &Api,
    target: &Target,
    query: &str,
    scope: &crate::args::Scope,
    output: Option<Output>,
) -> Result<(), Failure> {
    let table = fetch(api, target, query, TABLE).await?;
    let with_namespace = scope.all_namespaces && target.kind.namespaced;
    let rows = rows(&table, output == Some(Output::Wide), with_namespace);
    if rows.len() > 1 {
        print!("{}", align(&rows));
    } else {
        let place = scope.namespace().filter(|_| target.kind.namespaced);
        let place = place
            .map(|namespace| format!(" in namespace {namespace}"))
            .unwrap_or_default();
        eprintln!("there are no {}{place}", target.kind.plural);
    }
    Ok(())
}

/// The header and the rows of a server-printed Table.
fn rows(table: &Value, wide: bool, with_namespace: bool) -> Vec<Vec<String>> {
    let columns = table["columnDefinitions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let shown: Vec<usize> = (0..columns.len())
        .filter(|index| wide || columns[*index]["priority"].as_i64().unwrap_or(0) == 0)
        .collect();
    let lead = |text: &str| with_namespace.then(|| text.to_owned());
    let header = shown
        .iter()
        .map(|index| text(&columns[*index], "/name").to_uppercase());
    let mut rows = vec![lead("NAMESPACE").into_iter().chain(header).collect()];
    for row in table["rows"].as_array().into_iter().flatten() {
        let cells = shown.iter().map(|index| cell(row["cells"].get(*index)));
        rows.push(
            lead(text(row, "/object/metadata/namespace"))
                .into_iter()
                .chain(cells)
                .collect(),
        );
    }
    rows
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "<none>".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Columns three spaces apart; nothing trails.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("   ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_printed_in_columns_and_wide_ones_only_when_asked() {
        let table = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "Images", "priority": 1}],
            "rows": [{"cells": ["web", "3/3", "x"], "object": {"metadata": {"namespace": "db"}}}],
        });
        assert_eq!(
            align(&rows(&table, false, false)),
            "NAME   READY\nweb    3/3\n"
        );
        assert_eq!(
            align(&rows(&table, true, true)),
            "NAMESPACE   NAME   READY   IMAGES\ndb          web    3/3     x\n"
        );
    }
}
