//! What /etc/passwd and /etc/group say of a user, for the variables and groups that a program expects.

use std::fs;

/// The home folder of a user, `/` when there is no such user.
pub(super) fn home_of(uid: u32) -> String {
    entry(uid, &read()).map_or_else(|| "/".to_owned(), |entry| entry.home)
}

/// The main group of a user, 0 when there is no such user. upstream: as containerd does.
pub(super) fn group_of(uid: u32) -> u32 {
    entry(uid, &read()).map_or(0, |entry| entry.gid)
}

/// The groups that name this user as a member. upstream: `supplementalGroupsPolicy: Merge`.
pub(super) fn groups_of(uid: u32) -> Vec<u32> {
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    memberships(uid, &read(), &group)
}

fn memberships(uid: u32, passwd: &str, group: &str) -> Vec<u32> {
    let Some(Entry { name, .. }) = entry(uid, passwd) else {
        return Vec::new();
    };
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let gid = fields.nth(2)?.parse().ok()?;
        let members = fields.next()?;
        members
            .split(',')
            .any(|member| member == name)
            .then_some(gid)
    };
    group.lines().filter_map(of_line).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
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
            [name, _, id, gid, _, home, ..] if id.parse() == Ok(uid) => Some(Entry {
                name: (*name).to_owned(),
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
            name: "pg".to_owned(),
            gid: 71,
            home: "/srv/pg".to_owned(),
        };
        assert_eq!(entry(70, passwd), Some(want));
        assert_eq!(entry(7, passwd), None);
    }

    #[test]
    fn groups_are_those_that_name_the_user() {
        let passwd = "pg:x:70:71::/srv/pg:/bin/sh\n";
        let group = "root:x:0:\npg:x:71:\nssl:x:101:www,pg\nbroken\nlog:x:4:pgx\n";
        assert_eq!(memberships(70, passwd, group), [101]);
        assert_eq!(memberships(7, passwd, group), [0; 0]);
    }
}
