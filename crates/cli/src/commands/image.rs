//! `stead image`: images on this machine. Works on the data folder, whether the daemon runs or not.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use stead_image::registry::credentials::Credentials;
use stead_image::registry::mirrors::Registries;
use stead_image::registry::{Access, Patience, Progress, Puller};
use stead_image::source;
use stead_image::store::Removal;
use stead_image::{ImageName, Store};
use stead_node::images;

use crate::args::{ImageCommand, Output};
use crate::failure::Failure;
use crate::place::Place;

/// Runs one of its commands.
pub(crate) async fn run(command: ImageCommand, place: &Place) -> Result<ExitCode, Failure> {
    let data_dir = place.dir.clone();
    let store = open(place)?;
    if let ImageCommand::Pull {
        name,
        registry_mirror,
        plain_http,
        quiet,
    } = command
    {
        let name = parse(&name)?;
        let access = access(&data_dir, &name, &registry_mirror, plain_http)?;
        return pull(store, &name, &access, quiet).await;
    }
    let work = move || match command {
        // Done above, for it waits for others than disks.
        ImageCommand::Pull { .. } => Ok(ExitCode::SUCCESS),
        ImageCommand::Load { path, name } => load(&store, &path, name.as_deref()),
        ImageCommand::Ls { output } => list(&store, output),
        ImageCommand::Rm { names } => remove(&store, &data_dir, &names),
        ImageCommand::Prune { all } => prune(&store, &data_dir, all),
    };
    // Disks and locks are waited for.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::caused("the command ended badly", &error))?
}

fn open(place: &Place) -> Result<Store, Failure> {
    place.create()?;
    Store::open(&images::folder_of(&place.dir))
        .map_err(|error| Failure::caused("could not open the images", &error))
}

/// What the user's files and the command line say of registries.
fn access(
    data_dir: &Path,
    name: &ImageName,
    mirrors: &[String],
    plain_http: bool,
) -> Result<Access, Failure> {
    let mut registries = Registries::read(&images::registries_of(data_dir))
        .map_err(|error| Failure::caused("could not read what is set for registries", &error))?;
    for mirror in mirrors {
        registries
            .add_mirror(mirror)
            .map_err(|error| Failure::input(error.to_string()))?;
    }
    if plain_http {
        registries.plain_http.push(name.registry.clone());
    }
    Ok(Access {
        credentials: Credentials::of_user(),
        registries,
    })
}

async fn pull(
    store: Store,
    name: &ImageName,
    access: &Access,
    quiet: bool,
) -> Result<ExitCode, Failure> {
    let puller = Puller::new(store, Patience::default());
    let progress = Progress::default();
    let shows = !quiet && std::io::stderr().is_terminal();
    let work = puller.pull(name, access, &progress);
    let pulled = tokio::select! {
        pulled = work => pulled,
        () = show(&progress, shows) => return Ok(ExitCode::SUCCESS),
    };
    if shows {
        eprint!("\r\x1b[K");
    }
    let image =
        pulled.map_err(|error| Failure::caused(&format!("could not pull {name}"), &error))?;
    if quiet {
        println!("{}", image.name);
    } else {
        let layers = progress.layers.load(Ordering::Relaxed);
        println!(
            "{} {} ({layers} of {} layers new, {})",
            image.name,
            image.digest,
            image.layers.len(),
            size(image.size)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells how far it is, for ever.
async fn show(progress: &Progress, shows: bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let read = |amount: &AtomicU64| amount.load(Ordering::Relaxed);
        if shows && read(&progress.total) > 0 {
            eprint!(
                "\r\x1b[K{} of {}, {} of {} layers unpacked",
                size(read(&progress.done)),
                size(read(&progress.total)),
                read(&progress.unpacked),
                read(&progress.layers)
            );
        }
    }
}

fn load(store: &Store, path: &Path, name: Option<&str>) -> Result<ExitCode, Failure> {
    let name = name.map(parse).transpose()?;
    let loaded = source::load(store, path, name.as_ref())
        .map_err(|error| Failure::caused(&format!("could not load {}", path.display()), &error))?;
    for image in loaded {
        println!(
            "{} {} ({} of {} layers new)",
            image.name,
            image.id.short(),
            image.new_layers,
            image.layers
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn list(store: &Store, output: Option<Output>) -> Result<ExitCode, Failure> {
    let images = store
        .list()
        .map_err(|error| Failure::caused("could not list the images", &error))?;
    match output {
        Some(Output::Json) => {
            let items: Vec<_> = images
                .iter()
                .map(|image| {
                    json!({"name": image.name, "id": image.id, "digest": image.digest, "imageID": image.image_id(),
                        "size": image.size, "layers": image.layers.len(), "pulled": image.pulled, "at": image.at})
                })
                .collect();
            println!("{:#}", json!(items));
        }
        Some(Output::Name) => images.iter().for_each(|image| println!("{}", image.name)),
        Some(Output::Yaml) => {
            return Err(Failure::input(
                "images are listed as a table, names or json",
            ));
        }
        Some(Output::Wide) | None => print_table(&images),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(images: &[stead_image::Image]) {
    let width = images
        .iter()
        .map(|image| image.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    println!("{:<width$}  {:<12}  {:>9}  LAYERS", "NAME", "ID", "SIZE");
    for image in images {
        println!(
            "{:<width$}  {:<12}  {:>9}  {}",
            image.name,
            image.id.short(),
            size(image.size),
            image.layers.len()
        );
    }
}

fn remove(store: &Store, data_dir: &Path, names: &[String]) -> Result<ExitCode, Failure> {
    let names = names
        .iter()
        .map(|name| parse(name))
        .collect::<Result<Vec<_>, _>>()?;
    for name in &names {
        let removal = store
            .remove(name, || images::layers_in_use(data_dir))
            .map_err(|error| Failure::caused(&format!("could not remove {name}"), &error))?;
        match removal {
            Removal::Done => println!("{name} removed"),
            Removal::InUse => {
                return Err(Failure::failed(format!(
                    "a container uses {name}; delete its pod first"
                )));
            }
            Removal::Unknown => {
                return Err(Failure::failed(format!(
                    "there is no image {name}; `stead image ls` tells which there are"
                )));
            }
        }
    }
    prune(store, data_dir, false)
}

fn prune(store: &Store, data_dir: &Path, all: bool) -> Result<ExitCode, Failure> {
    let removed = store
        .prune(all, || images::layers_in_use(data_dir))
        .map_err(|error| Failure::caused("could not prune the images", &error))?;
    for name in &removed.names {
        println!("{name} removed");
    }
    println!(
        "{} layers removed, {} given back",
        removed.layers.len(),
        size(removed.bytes)
    );
    Ok(ExitCode::SUCCESS)
}

fn parse(name: &str) -> Result<ImageName, Failure> {
    ImageName::parse(name)
        .map_err(|error| Failure::input(format!("{name:?} is no name of an image: {error}")))
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1_000.0 && unit + 1 < UNITS.len() {
        amount /= 1_000.0;
        unit += 1;
    }
    let unit_name = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 {
        format!("{bytes} {unit_name}")
    } else {
        format!("{amount:.1} {unit_name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_500), "1.5 kB");
        assert_eq!(size(2_000_000_000_000), "2000.0 GB");
    }
}
