//! What /etc/passwd says of a user, for the variables and groups that a program expects.

use std::fs;

/// The home folder of a user, `/` when there is no such user.
pub(super) fn home_of(uid: u32) -> String {
    entry(uid, &read()).map_or_else(|| "/".to_owned(), |entry| entry.home)
}

/// The main group of a user, 0 when there is no such user. upstream: as containerd does.
pub(super) fn group_of(uid: u32) -> u32 {
    entry(uid, &read()).map_or(0, |entry| entry.gid)
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    gid: u32,
    home: String,
}

fn read() -> String {
    // A machine without the file has no users to look up.
    fs::read_to_string("/etc/passwd").unwrap_or_default()
}

fn entry(uid: u32, passwd: &str) -> Option<Entry> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [_, _, id, gid, _, home, ..] if id.parse() == Ok(uid) => Some(Entry {
                gid: gid.parse().ok()?,
                home: (*home).to_owned(),
            }),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\npg:x:70:71::/srv/pg:/bin/sh\n";
        let want = Entry {
            gid: 71,
            home: "/srv/pg".to_owned(),
        };
        assert_eq!(entry(70, passwd), Some(want));
        assert_eq!(entry(7, passwd), None);
    }
}
