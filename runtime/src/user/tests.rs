//! Users by name and number, groups, and files an image could set as a trap.

use super::{UserError, resolve, resolve_in};
use std::fs;
use std::os::unix::fs::symlink;

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n1000:x:7:8::/seven:\nbad line\n";
const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:50:web,root\naudio:x:29:other,web\nlog2:x:50:web\n";

#[test]
fn users_are_found_as_docker_finds_them() {
    let cases: [(&str, u32, u32, &[u32], &str); 7] = [
        ("", 0, 0, &[50], "/root"),
        ("web", 33, 34, &[29, 50], "/var/www"),
        ("33", 33, 34, &[29, 50], "/var/www"),
        ("web:log", 33, 50, &[], "/var/www"),
        ("4242", 4242, 0, &[], "/"),
        ("4242:77", 4242, 77, &[], "/"),
        ("1000", 7, 8, &[], "/seven"),
    ];
    for (text, uid, gid, groups, home) in cases {
        let user = resolve_in(text, PASSWD, GROUP).unwrap();
        assert_eq!(
            (user.uid, user.gid, user.additional_gids.as_slice(), user.home.as_str()),
            (uid, gid, groups, home),
            "{text}"
        );
    }
    assert!(
        matches!(resolve_in("nobody", PASSWD, GROUP), Err(UserError::NoUser { user }) if user == "nobody")
    );
    assert!(
        matches!(resolve_in("web:none", PASSWD, GROUP), Err(UserError::NoGroup { group }) if group == "none")
    );
}

#[test]
fn files_of_the_image_never_lead_outside_it() {
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    assert_eq!(resolve("0", &[], root.path()).unwrap().home, "/");
    fs::create_dir(&etc).unwrap();
    // Absolute and climbing links stay inside: there is no such file there.
    symlink("/etc/passwd", etc.join("passwd")).unwrap();
    symlink("../../../../../../etc/group", etc.join("group")).unwrap();
    assert!(resolve("root", &[], root.path()).is_err());
    fs::remove_file(etc.join("passwd")).unwrap();
    // A link that stays inside works.
    fs::write(etc.join("other"), PASSWD).unwrap();
    symlink("/etc/other", etc.join("passwd")).unwrap();
    fs::remove_file(etc.join("group")).unwrap();
    assert_eq!(resolve("web", &[], root.path()).unwrap().uid, 33);
    // A fifo would block for ever.
    fs::remove_file(etc.join("passwd")).unwrap();
    nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(resolve("web", &[], root.path()), Err(UserError::Read { .. })));
}
