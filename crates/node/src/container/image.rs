//! What an image gives to a container that its pod leaves open: program, variables, folder, user. Pure but for reading its users.

use k8s_openapi::api::core::v1 as core;
use stead_image::users::{self, Account};
use stead_image::{Image, ImageConfig};

use super::ConfigError;
use crate::env;

/// Program and arguments. upstream: containerd's `WithProcessArgs`: a command of the pod takes the place of both of
/// the image's lists, arguments alone only that of its second.
pub(super) fn argv(
    container: &core::Container,
    config: &ImageConfig,
    env: &[(String, String)],
) -> Vec<String> {
    let words = env::argv(container, env);
    let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    match (none(&container.command), none(&container.args)) {
        (false, _) => words,
        (true, false) => config.entrypoint.iter().cloned().chain(words).collect(),
        (true, true) => config
            .entrypoint
            .iter()
            .chain(&config.cmd)
            .cloned()
            .collect(),
    }
}

/// The image's variables in their order, the pod's in the place of those of the same name, then the rest of the pod's.
pub(super) fn env(
    config: &ImageConfig,
    own: &[(String, String)],
    account: &Account,
) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let home = ("HOME".to_owned(), account.home.clone());
    for (name, value) in config.env.iter().chain(own) {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1.clone_from(value),
            None => all.push((name.clone(), value.clone())),
        }
    }
    if !all.iter().any(|(name, _)| name == "HOME") {
        all.push(home);
    }
    all
}

/// The user that the container runs as: the pod's, else the image's.
pub(super) fn account(image: &Image, user: Option<i64>) -> Result<Account, ConfigError> {
    let wanted = user.map_or_else(|| image.config.user.clone(), |user| user.to_string());
    users::account(&image.layers, &wanted).map_err(|error| ConfigError(error.to_string()))
}

/// Whether the image's user may be taken where the pod forbids root; the text says why not.
/// upstream: `verifyRunAsNonRoot`: a name proves nothing.
pub(super) fn check_non_root(config: &ImageConfig, account: &Account) -> Result<(), String> {
    let user = config.user.split(':').next().unwrap_or_default();
    if !user.is_empty() && user.parse::<u32>().is_err() {
        return Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        ));
    }
    if account.uid == 0 {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_pods_command_wins_over_the_images_lists() {
        let config = ImageConfig {
            entrypoint: list("entry"),
            cmd: list("default $(X)"),
            ..ImageConfig::default()
        };
        let env = [("X".to_owned(), "1".to_owned())];
        for (command, args, expected) in [
            ("", "", "entry default $(X)"),
            ("", "a $(X)", "entry a 1"),
            ("c", "", "c"),
            ("c", "a", "c a"),
        ] {
            let container = core::Container {
                command: Some(list(command)),
                args: Some(list(args)),
                ..core::Container::default()
            };
            let found = argv(&container, &config, &env);
            assert_eq!(found, list(expected), "{command:?} {args:?}");
        }
    }

    #[test]
    fn the_pods_variables_win_in_their_place() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let config = ImageConfig {
            env: vec![pair("PATH", "/bin"), pair("A", "image")],
            ..ImageConfig::default()
        };
        let account = Account {
            uid: 1,
            gid: 1,
            groups: Vec::new(),
            home: "/home/one".to_owned(),
        };
        let own = [pair("A", "pod"), pair("B", "pod")];
        let expected = [
            pair("PATH", "/bin"),
            pair("A", "pod"),
            pair("B", "pod"),
            pair("HOME", "/home/one"),
        ];
        assert_eq!(env(&config, &own, &account), expected);
        let own = [pair("HOME", "/mine")];
        assert_eq!(
            env(&config, &own, &account).last(),
            Some(&pair("HOME", "/mine"))
        );
    }

    #[test]
    fn only_a_number_above_zero_is_no_root() {
        let check = |user: &str, uid: u32| {
            let config = ImageConfig {
                user: user.to_owned(),
                ..ImageConfig::default()
            };
            let account = Account {
                uid,
                gid: 0,
                groups: Vec::new(),
                home: "/".to_owned(),
            };
            check_non_root(&config, &account).is_ok()
        };
        assert!(check("7:7", 7));
        assert!(
            !check("web", 7),
            "a name may become root with the next image"
        );
        assert!(!check("", 0));
        assert!(!check("0", 0));
    }
}
