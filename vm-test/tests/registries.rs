//! The host's part of the stage: Debian's docker-registry, skopeo and the test image, without a machine.
//! In: Debian's packages. Out: assertions by curl and skopeo. Never: leaves loopback.

use lighter_vm_test::host;
use lighter_vm_test::registry::{PASSWORD, Registries, USER};

fn on_host(address: &str) -> String {
    address.replace("10.0.2.2", "127.0.0.1")
}

#[test]
fn serves_the_image_and_guards_the_closed_one() {
    let registries = Registries::start().unwrap();
    let open = on_host(&registries.open());
    let tags = host::sh(&format!("curl -sf http://{open}/v2/box/tags/list")).unwrap();
    assert!(tags.contains("\"1\""), "{tags}");
    let whole = host::sh(&format!(
        "d=$(mktemp -d); trap 'rm -r $d' EXIT; skopeo --insecure-policy copy -q --src-tls-verify=false docker://{open}/box:1 dir:$d"
    ));
    assert!(whole.is_ok(), "{whole:?}");
    let spoiled = host::sh(&format!(
        "d=$(mktemp -d); trap 'rm -r $d' EXIT; skopeo --insecure-policy copy -q --src-tls-verify=false docker://{open}/spoiled:1 dir:$d"
    ));
    assert!(format!("{spoiled:?}").to_lowercase().contains("digest"), "{spoiled:?}");
    let closed = on_host(&registries.closed());
    let code = |login: &str| {
        host::sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' {login} http://{closed}/v2/")).unwrap()
    };
    assert_eq!(code(""), "401");
    assert_eq!(code(&format!("-u {USER}:{PASSWORD}")), "200");
    assert!(host::sh(&format!("curl -s http://{}/v2/", on_host(&registries.dead()))).is_err());
}
