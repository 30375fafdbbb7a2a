//! Images of containers: what their names and their policy ask of this machine.

use jiff::Timestamp;
use stead_image::ImageName;

/// The image that is always there: the machine's own file system.
pub const HOST_IMAGE: &str = "stead.dev/host";

/// When an image is fetched, as `imagePullPolicy` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Whenever a container starts.
    Always,
    /// When it is not on the machine.
    IfNotPresent,
    /// Never: it must be on the machine.
    Never,
}

/// What is true of the image of one container on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Presence {
    /// It is not here.
    #[default]
    Absent,
    /// It is here.
    Present {
        /// Whether it names a program to run.
        has_command: bool,
        /// The signal that asks its program to end, where it says so.
        stop_signal: Option<i32>,
    },
    /// Whether it is here cannot be told; the text says why.
    Unreadable(String),
}

/// A pull for one life of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// For which life.
    pub attempt: u32,
    /// How far it is.
    pub state: PullState,
}

/// How far a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullState {
    /// It runs.
    Running,
    /// The image is here; the sentence tells of it.
    Done(String),
    /// It failed.
    Failed {
        /// Why.
        why: String,
        /// When.
        at: Timestamp,
    },
}

/// Why a container's image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ImageProblem {
    /// The name breaks the grammar; the text says where.
    Invalid(String),
    /// Whether it is here cannot be told.
    Unreadable(String),
    /// Not on the machine, and the policy forbids to fetch it.
    NeverPulled,
    /// It must be fetched first.
    MustPull,
}

/// Whether a name is that of the machine's own file system, whatever its tag.
pub fn is_host(name: &str) -> bool {
    ImageName::parse(name).is_ok_and(|name| name.full_repository() == HOST_IMAGE)
}

/// Whether two names are of the same image: `nginx` is `docker.io/library/nginx:latest`.
pub(super) fn same(one: &str, other: &str) -> bool {
    one == other
        || matches!((ImageName::parse(one), ImageName::parse(other)), (Ok(one), Ok(other)) if one == other)
}

/// A name as statuses of containers that run have it: in full.
pub(super) fn shown(name: &str) -> String {
    match ImageName::parse(name) {
        Ok(full) if !is_host(name) => full.to_string(),
        Ok(_) | Err(_) => name.to_owned(),
    }
}

/// Checks the name of an image and whether it can be used as it is.
/// upstream: `EnsureImageExists`, up to the pull.
pub(super) fn check(
    name: &str,
    policy: PullPolicy,
    presence: &Presence,
) -> Result<(), ImageProblem> {
    ImageName::parse(name).map_err(|error| ImageProblem::Invalid(error.to_string()))?;
    if is_host(name) {
        return Ok(());
    }
    match (presence, policy) {
        (Presence::Unreadable(why), _) => Err(ImageProblem::Unreadable(why.clone())),
        (Presence::Present { .. }, PullPolicy::IfNotPresent | PullPolicy::Never) => Ok(()),
        (Presence::Absent, PullPolicy::Never) => Err(ImageProblem::NeverPulled),
        // upstream: a registry is asked each time, also for what is here.
        (Presence::Present { .. } | Presence::Absent, PullPolicy::Always)
        | (Presence::Absent, PullPolicy::IfNotPresent) => Err(ImageProblem::MustPull),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: Presence = Presence::Present {
        has_command: true,
        stop_signal: None,
    };

    fn verdict(name: &str, policy: PullPolicy, presence: &Presence) -> &'static str {
        match check(name, policy, presence) {
            Ok(()) => "use",
            Err(ImageProblem::Invalid(_)) => "invalid",
            Err(ImageProblem::Unreadable(_)) => "unreadable",
            Err(ImageProblem::NeverPulled) => "never",
            Err(ImageProblem::MustPull) => "pull",
        }
    }

    #[test]
    fn the_machine_itself_needs_no_pull_and_other_names_do() {
        for (name, expected) in [
            ("stead.dev/host", "use"),
            ("stead.dev/host:latest", "use"),
            ("stead.dev/hostx", "pull"),
            ("nginx", "pull"),
            ("localhost:5000/a/b__c-d.e:v1.2", "pull"),
            ("Bad:Image:Name", "invalid"),
            ("library/Case", "invalid"),
            ("", "invalid"),
        ] {
            let found = verdict(name, PullPolicy::IfNotPresent, &Presence::Absent);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn the_policy_decides_about_what_is_here_and_what_is_not() {
        let broken = Presence::Unreadable("why".to_owned());
        for (policy, present, absent) in [
            (PullPolicy::Always, "pull", "pull"),
            (PullPolicy::IfNotPresent, "use", "pull"),
            (PullPolicy::Never, "use", "never"),
        ] {
            assert_eq!(verdict("a", policy, &PRESENT), present, "{policy:?}");
            assert_eq!(
                verdict("a", policy, &Presence::Absent),
                absent,
                "{policy:?}"
            );
            assert_eq!(verdict("a", policy, &broken), "unreadable", "{policy:?}");
        }
        assert_eq!(verdict("A:B:C", PullPolicy::Never, &PRESENT), "invalid");
    }

    #[test]
    fn names_are_the_same_however_short() {
        assert!(same("nginx", "docker.io/library/nginx:latest"));
        assert!(!same("nginx", "nginx:1"));
        assert!(same("odd name", "odd name"));
        assert_eq!(shown("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(shown("stead.dev/host"), "stead.dev/host");
    }
}
