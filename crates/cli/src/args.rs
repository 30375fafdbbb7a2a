//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Runs Kubernetes StatefulSets on one machine, with no cluster.
#[derive(Debug, Parser)]
#[command(
    name = "stead",
    version,
    disable_version_flag = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    /// Where everything is kept [default: /var/lib/stead for root, else $XDG_DATA_HOME/stead]
    #[arg(long, global = true, env = "STEAD_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start Stead here, or apply to the one that runs, and show every ordinal coming up
    Up(Up),
    /// Stop all pods in reverse order, then Stead itself; data stays
    Down(Down),
    /// Sets, ordinals, claims, addresses, and why something does not move
    Status(Status),
    /// Create or change objects from files
    Apply(Apply),
    /// Show objects
    Get(Get),
    /// Change the number of replicas
    Scale(Scale),
    /// Delete objects
    Delete(Delete),
    /// Print what a container said
    Logs(Logs),
    /// Run a program in a container
    Exec(Exec),
    /// Join the streams of a running container
    Attach(Attach),
    /// Forward ports of this machine to ports of a pod
    PortForward(PortForward),
    /// Images on this machine: get, list and remove them
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Print the path of the kubeconfig, for kubectl and other clients
    Kubeconfig(Kubeconfig),
    /// Ask the cluster's DNS for a name
    Dns(Dns),
    /// Give back what a crash left of this machine: processes, mounts, interfaces, cgroups; never data, never what lives
    Cleanup(Cleanup),
    /// Run the Kubernetes API server alone: no controllers, no node
    Apiserver(Apiserver),
    /// Print the version
    Version,
    /// Print a completion script
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Up {
    /// File or folder of manifests, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    pub(crate) filename: Vec<String>,
    /// Leave Stead running in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Return only when every set of the files is ready
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long --wait waits at most
    #[arg(long, default_value = "300s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Where the API listens
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDR")]
    pub(crate) listen: std::net::SocketAddr,
    /// How pods are run; the best that the machine allows when not given
    #[arg(long, env = "STEAD_TIER")]
    pub(crate) tier: Option<Tier>,
    /// How large a container's log grows before it goes on in another file
    #[arg(long, default_value = "10Mi", value_parser = size, value_name = "SIZE")]
    pub(crate) container_log_max_size: u64,
    /// How many files of a container's log are kept, with the one that is written
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..), value_name = "N")]
    pub(crate) container_log_max_files: u32,
    /// Addresses of Services, such as 10.96.0.0/16; a data folder keeps those that it was first started with
    #[arg(long, value_name = "CIDR")]
    pub(crate) service_cidr: Option<String>,
    /// Addresses of pods, such as 10.7.0.0/24, in the containers tier; a free range when not given
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Option<String>,
    /// Set by `up -d` for the process that it leaves behind
    #[arg(long, hide = true)]
    pub(crate) daemon: bool,
}

/// See `stead_node::runtime::Tier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Namespaces, a cgroup, a root file system and an address of its own
    Containers,
    /// User, mount and PID namespaces; the machine's network
    Rootless,
    /// Plain supervised processes
    Processes,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Down {
    /// Then delete every claim and volume too
    #[arg(long)]
    pub(crate) delete_volumes: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// How long to wait at most
    #[arg(long, default_value = "300s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

/// Which namespace.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Namespace {
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
}

/// Which namespace, or all of them.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Scope {
    #[command(flatten)]
    pub(crate) one: Namespace,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
}

impl Scope {
    /// The one namespace, or `None` for all.
    pub(crate) fn namespace(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.one.namespace.as_str())
    }
}

/// Forms of output for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Json,
    Yaml,
    Name,
    Wide,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Status {
    /// Only this set
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Form of output
    #[arg(short, long)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Apply {
    /// File or folder of manifests, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub(crate) filename: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Let the server check everything and store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Form of output
    #[arg(short, long)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    /// Kind (pods, sts, pvc, ...) or KIND/NAME
    pub(crate) kind: String,
    /// Name
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Label selector
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Form of output
    #[arg(short, long)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Scale {
    /// The set: NAME, or KIND/NAME
    pub(crate) target: String,
    /// How many replicas
    #[arg(long)]
    pub(crate) replicas: u32,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Delete {
    /// Kind, or KIND/NAME
    #[arg(required_unless_present = "filename")]
    pub(crate) kind: Option<String>,
    /// Names
    pub(crate) names: Vec<String>,
    /// Delete what these files name
    #[arg(
        short,
        long = "filename",
        value_name = "FILE|DIR|-",
        conflicts_with = "kind"
    )]
    pub(crate) filename: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// What becomes of what the object owns
    #[arg(long, default_value = "background")]
    pub(crate) cascade: Cascade,
    /// Return at once, before the objects are gone
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "300s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

/// `propagationPolicy` of a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cascade {
    Background,
    Foreground,
    Orphan,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Logs {
    /// Pod
    pub(crate) pod: String,
    /// Container
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Go on as it speaks
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Of the run before the last restart
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Of every container of the pod, one after the other, or together with --follow
    #[arg(long, conflicts_with = "container")]
    pub(crate) all_containers: bool,
    /// Each line begins with the pod and the container
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Only this many lines from the end
    #[arg(long)]
    pub(crate) tail: Option<u64>,
    /// Only what is not older than this
    #[arg(long, value_parser = duration, value_name = "TIME", conflicts_with = "since_time")]
    pub(crate) since: Option<Duration>,
    /// Only what was said at this time or later (RFC 3339)
    #[arg(long, value_name = "WHEN")]
    pub(crate) since_time: Option<String>,
    /// At most this many bytes
    #[arg(long)]
    pub(crate) limit_bytes: Option<u64>,
    /// With the time of each line
    #[arg(long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Exec {
    /// Pod
    pub(crate) pod: String,
    /// Container
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// With a terminal
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Program and arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Get an image from its registry
    Pull {
        /// Its name
        name: String,
        /// Ask a mirror first: REGISTRY=ADDRESS, for instance docker.io=https://mirror.example; may be repeated
        #[arg(long, value_name = "REGISTRY=ADDRESS")]
        registry_mirror: Vec<String>,
        /// Speak to the registry without TLS
        #[arg(long)]
        plain_http: bool,
        /// Print the name alone at the end
        #[arg(short, long)]
        quiet: bool,
    },
    /// Load images from an OCI layout folder, an archive of one, or what `docker save` wrote
    Load {
        /// The folder or file
        path: PathBuf,
        /// What the image is to be called; needed where the layout does not say
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// List the images that are here
    Ls {
        /// Form of output: json
        #[arg(short, long)]
        output: Option<Output>,
    },
    /// Remove names of images, and what they alone need
    Rm {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove what no image needs; what a container uses stays
    Prune {
        /// Remove every image first that no container uses
        #[arg(short, long)]
        all: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Attach {
    /// Pod
    pub(crate) pod: String,
    /// Container
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// With a terminal
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortForward {
    /// Pod
    pub(crate) pod: String,
    /// LOCAL:REMOTE, REMOTE for the same port here, or :REMOTE for any free one
    #[arg(required = true, value_name = "PORTS")]
    pub(crate) ports: Vec<String>,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDR")]
    pub(crate) address: std::net::IpAddr,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Kubeconfig {
    /// Print the file itself
    #[arg(long)]
    pub(crate) print: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Dns {
    /// Name, for instance web-0.nginx.default.svc.cluster.local
    #[arg(required_unless_present_any = ["install", "uninstall"])]
    pub(crate) name: Option<String>,
    /// Type of record
    #[arg(long = "type", default_value = "A", value_name = "TYPE")]
    pub(crate) record: String,
    /// Let this machine's own resolver find the cluster's names, by a drop-in where it takes one
    #[arg(long, conflicts_with_all = ["name", "uninstall"])]
    pub(crate) install: bool,
    /// Take the drop-in away
    #[arg(long, conflicts_with = "name")]
    pub(crate) uninstall: bool,
    /// The machine's root folder
    #[arg(long, hide = true, default_value = "/", value_name = "DIR")]
    pub(crate) root: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Cleanup {
    /// Only list what would be given back
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Apiserver {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDR")]
    pub(crate) listen: std::net::SocketAddr,
    /// Keep objects in memory only; the data folder holds nothing but keys and the kubeconfig
    #[arg(long)]
    pub(crate) in_memory: bool,
}

/// Bytes as Kubernetes writes them: `10Mi`, `500k`, `4096`.
fn size(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is no size; try 10Mi");
    let quantity = stead_schema::quantity::Quantity::parse(text).map_err(|_| refused())?;
    match u64::try_from(quantity.value()) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        Ok(_) | Err(_) => Err(refused()),
    }
}

/// `90`, `90s`, `5m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no time; try 30s, 5m or 1h"))?;
    let seconds = match unit {
        "" | "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    };
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is no time; try 30s, 5m or 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("5 m").is_err());
        assert!(duration("99999999999999999999").is_err());
        assert!(duration("9999999999999999999h").is_err());
    }
}
