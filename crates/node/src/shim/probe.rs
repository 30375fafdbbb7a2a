//! Trying out whether this machine allows a tier, by going the way of a container as far as its program.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::runtime::{ContainerId, ContainerSpec, Order, Place, Root, Tier, boot_id};

use super::launch::StartFailure;

/// Tries the tier of this name in `folder`, and says on standard output what stands in the way.
pub(super) fn probe(tier: &str, folder: &Path) -> ExitCode {
    let tried = match tier {
        "rootless" => try_out(Tier::Rootless, folder),
        "containers" => try_out(Tier::Containers, folder),
        other => Err(StartFailure(format!("there is no tier {other}"))),
    };
    match tried {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartFailure(sentence)) => {
            use std::io::Write;
            // Whoever asked and went away needs no answer.
            let _ = writeln!(io::stdout(), "{sentence}");
            ExitCode::FAILURE
        }
    }
}

fn try_out(tier: Tier, folder: &Path) -> Result<(), StartFailure> {
    let order = order(tier, folder)?;
    let layer = folder.join("layer");
    fs::create_dir_all(&layer)?;
    match tier {
        Tier::Processes => Ok(()),
        Tier::Rootless => super::rootless::try_out(&order, &layer),
        Tier::Containers => super::containers::try_out(&order, &layer),
    }
}

/// The smallest container there can be, with one mount where the machine has no place for it.
fn order(tier: Tier, folder: &Path) -> io::Result<Order> {
    let hosts = folder.join("hosts");
    fs::write(&hosts, b"")?;
    let volume = folder.join("volume");
    fs::create_dir_all(&volume)?;
    Ok(Order {
        number: String::new(),
        boot: boot_id()?,
        tier,
        spec: ContainerSpec {
            id: ContainerId {
                pod_uid: format!("probe-{}", std::process::id()),
                container: "probe".to_owned(),
                attempt: 0,
            },
            pod: "stead/probe".to_owned(),
            root: Root::Host,
            argv: vec!["/bin/true".to_owned()],
            env: Vec::new(),
            cwd: None,
            user: None,
            group: None,
            groups: Vec::new(),
            mounts: vec![crate::runtime::Mount {
                source: volume,
                target: "/stead-probe".into(),
                read_only: true,
                within: None,
            }],
            read_only_root: false,
            privileged: false,
            add_capabilities: Vec::new(),
            drop_capabilities: Vec::new(),
            no_new_privileges: false,
            confinement: crate::runtime::Confinement::default(),
            memory_limit: None,
            cpu_limit_millis: None,
            cpu_request_millis: None,
            stdin: false,
            stdin_once: false,
            tty: false,
            log_path: folder.join("log"),
            termination_message: None,
        },
        place: Place {
            hostname: "probe".to_owned(),
            hostname_file: hosts.clone(),
            hosts,
            hidden: vec![folder.to_owned()],
            cgroup: Some(format!("stead/probe-{}", std::process::id())),
            ..Place::default()
        },
        log: crate::runtime::LogLimits::default(),
    })
}
