//! Unpacking layers into a folder: what is right about them, and archives that mean harm.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::support::archive::{Head, Tar, block, sum};
use proptest::prelude::*;
use stead_image::Limits;
use stead_image::unpack::{Policy, UnpackError, Unpacked, remove_tree, unpack};
use tempfile::TempDir;

const MINE: Policy = Policy {
    owners: false,
    devices: false,
};

/// A folder to unpack into, with something beside it that must stay as it is.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tree")).unwrap();
        fs::write(folder.path().join("outside"), "untouched").unwrap();
        Place { folder }
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked, UnpackError> {
        unpack(archive, &self.tree(), MINE, &Limits::default(), 10_000)
    }

    fn untouched(&self) -> bool {
        let expected = ["outside", "replaced", "tree"];
        let outside = fs::read_to_string(self.folder.path().join("outside"));
        fs::read_dir(self.folder.path())
            .unwrap()
            .all(|entry| expected.contains(&entry.unwrap().file_name().to_str().unwrap()))
            && outside.is_ok_and(|text| text == "untouched")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Folders of an archive may have taken the right to remove them.
        remove_tree(self.folder.path()).unwrap();
    }
}

fn unpacked(archive: &[u8]) -> Place {
    let place = Place::new();
    place.unpack(archive).unwrap();
    place
}

fn refused(archive: &[u8]) -> String {
    let place = Place::new();
    let why = place.unpack(archive).expect_err("it should be refused");
    assert!(place.untouched());
    why.to_string()
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|about| about.file_type().is_char_device() && about.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 1];
    rustix::fs::getxattr(path, "user.overlay.opaque", &mut value[..]).is_ok() && value == *b"y"
}

#[test]
fn files_folders_and_links_come_out_as_they_went_in() {
    let mut script = Head::new("bin/run", b'0');
    script.mode = 0o750;
    let long = "deep/".repeat(30) + "file";
    let place = unpacked(
        &Tar::new()
            .folder("./", 0o711)
            .folder("bin/", 0o555)
            .file_as(script, b"#!")
            .hard_link("bin/again", "bin/run")
            .symlink("sh", "bin/run")
            .pax(&[("path", long.as_bytes()), ("mtime", b"1.5")])
            .file("short", b"long")
            .end(),
    );
    let tree = place.tree();
    let mode = |path: &str| fs::metadata(tree.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(
        (mode(""), mode("bin"), mode("bin/run")),
        (0o711, 0o555, 0o750)
    );
    assert_eq!(fs::metadata(tree.join("bin/again")).unwrap().nlink(), 2);
    assert_eq!(
        fs::read_link(tree.join("sh")).unwrap(),
        Path::new("bin/run")
    );
    assert_eq!(fs::read(tree.join(&long)).unwrap(), b"long");
    let about = fs::metadata(tree.join(&long)).unwrap();
    assert_eq!((about.mtime(), about.mtime_nsec()), (1, 500_000_000));
    assert_eq!(
        fs::metadata(tree.join("bin")).unwrap().mtime(),
        1_700_000_000
    );
}

#[test]
fn a_link_of_the_layer_leads_inside_wherever_it_points() {
    let place = unpacked(
        &Tar::new()
            .folder("usr/lib/", 0o755)
            .symlink("lib", "usr/lib")
            .file("lib/a", b"1")
            .symlink("abs", "/usr/lib")
            .file("abs/b", b"2")
            .symlink("up", "../../../../..")
            .file("up/c", b"3")
            .symlink("none", "/made/on/the/way")
            .file("none/d", b"4")
            .end(),
    );
    for (path, text) in [
        ("usr/lib/a", "1"),
        ("usr/lib/b", "2"),
        ("c", "3"),
        ("made/on/the/way/d", "4"),
    ] {
        assert_eq!(
            fs::read_to_string(place.tree().join(path)).unwrap(),
            text,
            "{path}"
        );
    }
    assert!(place.untouched());
}

#[test]
fn what_would_leave_the_layer_is_refused() {
    for (archive, expected) in [
        (Tar::new().file("../outside", b"x").end(), "leads out"),
        (Tar::new().file("a/../../outside", b"x").end(), "leads out"),
        (Tar::new().hard_link("in", "../outside").end(), "leads out"),
        (
            Tar::new().hard_link("in", "/etc/passwd").end(),
            "does not have",
        ),
        (
            Tar::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", b"x")
                .end(),
            "round in links",
        ),
        (
            Tar::new().file("a", b"").file("a/x", b"x").end(),
            "no folder",
        ),
        (
            Tar::new().file("b/.wh...", b"").end(),
            "whiteout of no name",
        ),
        (Tar::new().file("b/.wh.", b"").end(), "whiteout of no name"),
        (Tar::new().raw(&Head::new("hole", b'3'), b"").end(), "0:0"),
        (
            Tar::new()
                .file(&"a/".repeat(49), b"")
                .pax(&[("path", "d/".repeat(300).as_bytes())])
                .folder("x", 0o755)
                .end(),
            "too deep",
        ),
        (
            Tar::new()
                .pax(&[("path", &[b'n'; 300])])
                .file("x", b"")
                .end(),
            "255",
        ),
    ] {
        let why = refused(&archive);
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[test]
fn a_hard_link_through_a_link_stays_inside_and_one_to_a_link_is_a_link() {
    let place = unpacked(
        &Tar::new()
            .symlink("out", "/")
            .file("real", b"mine")
            .hard_link("copy", "out/real")
            .symlink("evil", "../outside")
            .hard_link("evil2", "evil")
            .file("evil2", b"replaced")
            .end(),
    );
    assert_eq!(fs::read(place.tree().join("copy")).unwrap(), b"mine");
    assert_eq!(fs::read(place.tree().join("evil2")).unwrap(), b"replaced");
    assert!(place.untouched());
}

#[test]
fn what_a_layer_removes_becomes_the_overlays_marks() {
    let place = unpacked(
        &Tar::new()
            .file("etc/.wh.gone", b"")
            .folder("all/", 0o755)
            .file("all/.wh..wh..opq", b"")
            .file("all/new", b"")
            .file("etc/.wh.back", b"")
            .folder("etc/back/", 0o755)
            .file("etc/.wh.way", b"")
            .file("etc/way/file", b"")
            .file("etc/kept", b"kept")
            .file("etc/.wh.kept", b"")
            .folder("etc/own/", 0o755)
            .file("etc/.wh.own", b"")
            .file(".wh..wh.plnk", b"")
            .end(),
    );
    let tree = place.tree();
    assert!(is_whiteout(&tree.join("etc/gone")));
    for folder in ["all", "etc/back", "etc/way", "etc/own"] {
        assert!(is_opaque(&tree.join(folder)), "{folder}");
    }
    assert_eq!(
        fs::read(tree.join("etc/kept")).unwrap(),
        b"kept",
        "a layer removes only what is below it"
    );
    assert!(!tree.join(".wh..wh.plnk").exists());
}

#[test]
fn the_last_entry_of_a_path_wins_whatever_it_is() {
    let place = unpacked(
        &Tar::new()
            .file("a", b"file")
            .folder("a/", 0o700)
            .file("a/in", b"")
            .symlink("b", "/outside")
            .file("b", b"a file now")
            .folder("c/d/e/", 0o755)
            .file("c", b"no folder now")
            .folder("d/", 0o755)
            .folder("d/", 0o711)
            .end(),
    );
    let tree = place.tree();
    assert!(tree.join("a/in").exists());
    assert_eq!(fs::read(tree.join("b")).unwrap(), b"a file now");
    assert_eq!(fs::read(tree.join("c")).unwrap(), b"no folder now");
    assert_eq!(
        fs::metadata(tree.join("d")).unwrap().permissions().mode() & 0o777,
        0o711
    );
    assert!(place.untouched());
}

#[test]
fn zeros_become_holes_and_sparse_files_of_every_form_are_read() {
    let block = |byte: u8| vec![byte; 4_096];
    let data = [block(1), block(2)].concat();
    let whole = [block(1), vec![0; 8 << 20], block(2)].concat();
    let second = (8 << 20) + 4_096;
    let size = whole.len().to_string();
    let map = format!("0,4096,{second},4096");
    let lines = format!("2\n0\n4096\n{second}\n4096\n");
    let mut in_data = lines.into_bytes();
    in_data.resize(512, 0);
    in_data.extend_from_slice(&data);
    let one = ("GNU.sparse.realsize", size.as_bytes());
    let archive = Tar::new()
        .file("plain", &whole)
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"newest"),
            one,
        ])
        .file("GNUSparseFile.0/newest", &in_data)
        .pax(&[
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.name", b"newer"),
            ("GNU.sparse.size", size.as_bytes()),
        ])
        .file("x", &data)
        .pax(&[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"4096"),
            ("GNU.sparse.offset", second.to_string().as_bytes()),
            ("GNU.sparse.numbytes", b"4096"),
        ])
        .file("older", &data);
    let mut archive = archive.cut();
    archive.extend_from_slice(&gnu_sparse(
        "oldest",
        &[(0, 4_096), (second, 4_096)],
        whole.len() as u64,
        &data,
    ));
    let place = unpacked(&archive);
    for name in ["plain", "newest", "newer", "older", "oldest"] {
        let path = place.tree().join(name);
        assert!(fs::read(&path).unwrap() == whole, "{name}");
        assert!(
            fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20,
            "{name} has no holes"
        );
    }
}

/// The old GNU form has its map in the header.
fn gnu_sparse(path: &str, map: &[(usize, usize)], real: u64, data: &[u8]) -> Vec<u8> {
    let mut head = Head::new(path, b'S');
    head.size = data.len() as u64;
    let mut header = block(&head);
    header[257..265].copy_from_slice(b"ustar  \0");
    header[329..345].fill(0);
    for (at, (offset, length)) in (386..).step_by(24).zip(map) {
        header[at..at + 24].copy_from_slice(format!("{offset:011o}\0{length:011o}\0").as_bytes());
    }
    header[483..495].copy_from_slice(format!("{real:011o}\0").as_bytes());
    sum(&mut header);
    [header.as_slice(), data].concat()
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    for (map, size) in [
        ("0,10", "5"),
        ("5,5,0,5", "10"),
        ("0,5", "10"),
        ("0,18446744073709551615", "10"),
        ("9,10", "10"),
    ] {
        let archive = Tar::new()
            .pax(&[
                ("GNU.sparse.map", map.as_bytes()),
                ("GNU.sparse.size", size.as_bytes()),
            ])
            .file("x", &[7; 10])
            .end();
        assert!(refused(&archive).contains("sparse"), "{map}");
    }
}

#[test]
fn attributes_are_kept_but_for_those_of_the_overlay_and_the_machine() {
    let place = unpacked(
        &Tar::new()
            .pax(&[
                ("SCHILY.xattr.user.note", b"kept\0as it is"),
                ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.security.selinux", b"x"),
            ])
            .file("file", b"")
            .end(),
    );
    let path = place.tree().join("file");
    let mut names = [0_u8; 256];
    let length = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
    assert_eq!(&names[..length], b"user.note\0");
    let mut value = [0_u8; 32];
    let length = rustix::fs::getxattr(&path, "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"kept\0as it is");
}

#[test]
fn an_ordinary_users_layer_gives_nobodys_rights_and_no_devices() {
    let mut program = Head::new("su", b'0');
    (program.mode, program.uid, program.gid) = (0o6755, 0, 0);
    let mut device = Head::new("disk", b'4');
    device.device = (8, 0);
    let place = Place::new();
    let done = place
        .unpack(
            &Tar::new()
                .file_as(program, b"")
                .raw(&device, b"")
                .raw(&Head::new("pipe", b'6'), b"")
                .end(),
        )
        .unwrap();
    let tree = place.tree();
    assert_eq!(
        fs::metadata(tree.join("su")).unwrap().mode() & 0o7777,
        0o755
    );
    assert!(!tree.join("disk").exists());
    assert!(
        fs::symlink_metadata(tree.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!((done.entries, done.devices_left), (3, 1));
}

#[test]
fn archives_that_are_cut_off_or_lie_are_errors() {
    let whole = Tar::new().file("a", &[1; 2_000]).cut();
    for end in [1, 511, 513, 1_000, 2_511] {
        refused(&whole[..end]);
    }
    let mut wrong = whole.clone();
    wrong[0] ^= 1;
    assert!(refused(&wrong).contains("checksum"));
    let mut huge = Head::new("pax", b'x');
    huge.size = 1 << 33;
    assert!(refused(&Tar::new().raw(&huge, b"").end()).contains("too large"));
    let many = (0..20).fold(Tar::new(), |tar, _| tar.pax(&[("comment", b"x")]));
    assert!(refused(&many.end()).contains("too many headers"));
    assert!(
        refused(
            &Tar::new()
                .raw(&Head::new("p", b'x'), b"")
                .file("a", b"")
                .raw(
                    &{
                        let mut head = Head::new("p", b'x');
                        head.size = 9;
                        head
                    },
                    b"99 a=b\n"
                )
                .end()
        )
        .contains("malformed")
    );
}

#[test]
fn more_entries_than_allowed_are_refused() {
    let place = Place::new();
    let archive = (0..20)
        .fold(Tar::new(), |tar, n| tar.file(&n.to_string(), b""))
        .end();
    let result = unpack(
        archive.as_slice(),
        &place.tree(),
        MINE,
        &Limits::default(),
        10,
    );
    assert!(
        result
            .expect_err("too many")
            .to_string()
            .contains("more than 10 entries")
    );
}

/// A name that an attacker might use.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(".wh.a".to_owned()),
        1 => Just(".wh..wh..opq".to_owned()),
        1 => Just("/".to_owned()),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..5).prop_map(|names| names.join("/"))
}

fn entry() -> impl Strategy<Value = (u8, String, String)> {
    let kind = prop::sample::select(b"00512366Lx".to_vec());
    let target = prop_oneof![
        path(),
        Just("/".to_owned()),
        Just("../outside".to_owned()),
        Just("../../..".to_owned())
    ];
    (kind, path(), target)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_an_archive_says_nothing_outside_is_touched(entries in prop::collection::vec(entry(), 1..25)) {
        let mut tar = Tar::new();
        for (kind, path, link) in &entries {
            let mut head = Head::new(path, *kind);
            head.link = link.clone().into_bytes();
            head.device = (1, 3);
            head.mode = 0o755;
            let bytes: &[u8] = if *kind == b'0' || *kind == b'L' { link.as_bytes() } else { b"" };
            tar = tar.file_as(head, bytes);
        }
        let place = Place::new();
        // Refused or not: both are right.
        let _ = place.unpack(&tar.end());
        prop_assert!(place.untouched());
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..3_000), right in any::<bool>()) {
        if right && bytes.len() >= 512 {
            let mut head = [0; 512];
            head.copy_from_slice(&bytes[..512]);
            sum(&mut head);
            bytes[..512].copy_from_slice(&head);
        }
        let place = Place::new();
        let _ = place.unpack(&bytes);
        prop_assert!(place.untouched());
    }
}
