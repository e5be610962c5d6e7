//! Members that set up a process beside command and limits: name resolution, files of variables,
//! user limits, kernel parameters, capabilities, confinement, links.
//! In: JSON as people write it. Out: the parsed definition, or the field that the error names.

use super::{C, accepted, definition, refused};
use serde_json::{Value, json};

/// `container` is refused, and the error names `field` of it.
#[track_caller]
fn no(field: &str, container: Value) -> String {
    refused(&format!("{C}.{field}"), definition(json!({}), container))
}

#[track_caller]
fn yes(container: Value) {
    accepted(definition(json!({}), container));
}

#[test]
fn environment_files_are_files_of_the_node() {
    let file = |value: &str, kind: &str| json!({"environmentFiles": [{"value": value, "type": kind}]});
    yes(file("/etc/lighter/env/web.env", "file"));
    assert!(no("environmentFiles[0].type", file("arn:aws:s3:::b/web.env", "s3")).contains("file"));
    assert!(no("environmentFiles[0].value", file("arn:aws:s3:::b/web.env", "file")).contains("S3"));
    for path in ["web.env", "/etc/../web.env", "/etc/web.txt"] {
        no("environmentFiles[0].value", file(path, "file"));
    }
    let many: Vec<Value> = (0..11).map(|i| json!({"value": format!("/e/{i}.env"), "type": "file"})).collect();
    no("environmentFiles", json!({"environmentFiles": many}));
}

#[test]
fn name_resolution_is_made_of_addresses_and_names() {
    yes(json!({"dnsServers": ["10.0.0.2", "fd00::2"], "dnsSearchDomains": ["svc.local", "."],
               "extraHosts": [{"hostname": "db_1", "ipAddress": "10.0.0.9"}, {"hostname": "node", "ipAddress": "host-gateway"}]}));
    // As the AWS command line's skeleton has them.
    yes(json!({"dnsServers": [""], "dnsSearchDomains": [""], "links": [""], "dockerSecurityOptions": [""]}));
    no("dnsServers[0]", json!({"dnsServers": ["dns.local"]}));
    no("dnsServers", json!({"dnsServers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}));
    no("dnsSearchDomains[0]", json!({"dnsSearchDomains": ["a b"]}));
    no("extraHosts[0].hostname", json!({"extraHosts": [{"hostname": "a b", "ipAddress": "1.1.1.1"}]}));
    no("extraHosts[0].ipAddress", json!({"extraHosts": [{"hostname": "a", "ipAddress": "b"}]}));
    let gateway = json!({"extraHosts": [{"hostname": "a", "ipAddress": "host-gateway"}]});
    refused(&format!("{C}.extraHosts[0].ipAddress"), definition(json!({"networkMode": "host"}), gateway));
}

#[test]
fn ulimits_have_known_names_and_an_order() {
    let of = |name: &str, soft: i64, hard: i64| json!({"ulimits": [{"name": name, "softLimit": soft, "hardLimit": hard}]});
    yes(of("nofile", 1024, 2048));
    yes(of("memlock", -1, -1));
    yes(of("core", 0, -1));
    no("ulimits[0].name", of("files", 1, 1));
    no("ulimits[0].softLimit", of("nofile", 3, 2));
    no("ulimits[0].softLimit", of("nofile", -1, 2));
    no("ulimits[0].softLimit", of("nofile", -2, 2));
    no("ulimits[0].hardLimit", json!({"ulimits": [{"name": "core", "softLimit": 1}]}));
    let twice = json!({"name": "core", "softLimit": 1, "hardLimit": 1});
    no("ulimits[1].name", json!({"ulimits": [twice.clone(), twice]}));
}

#[test]
fn kernel_parameters_are_those_of_a_namespace() {
    let of = |name: &str| json!({"systemControls": [{"namespace": name, "value": "1"}]});
    for name in ["net.core.somaxconn", "net.ipv4.conf.eth0.rp_filter", "kernel.shmmax", "fs.mqueue.msg_max"] {
        yes(of(name));
    }
    for name in
        ["vm.swappiness", "kernel.panic", "net", "net..a", "net.a/../b", "kernel.shmmax2", "fs.file-max"]
    {
        no("systemControls[0].namespace", of(name));
    }
    no("systemControls[0].value", json!({"systemControls": [{"namespace": "net.a", "value": "1\n2"}]}));
    let field = format!("{C}.systemControls[0].namespace");
    let host = json!({"networkMode": "host"});
    refused(&field, definition(host.clone(), of("net.core.somaxconn")));
    accepted(definition(host, of("kernel.shmmax")));
}

#[test]
fn capabilities_are_those_of_the_list() {
    let of = |change: &str, name: &str| json!({"linuxParameters": {"capabilities": {change: [name]}}});
    yes(of("add", "SYS_PTRACE"));
    yes(of("drop", "ALL"));
    no("linuxParameters.capabilities.add[0]", of("add", "CAP_SYS_PTRACE"));
    no("linuxParameters.capabilities.drop[0]", of("drop", "EVERYTHING"));
}

#[test]
fn security_options_are_docker_s() {
    for text in [
        "no-new-privileges",
        "no-new-privileges:true",
        "apparmor:web",
        "apparmor=unconfined",
        "seccomp:unconfined",
    ] {
        yes(json!({"dockerSecurityOptions": [text]}));
    }
    for (text, word) in [
        ("label:type:svirt", "SELinux"),
        ("no-new-privileges:false", "no-new-privileges"),
        ("seccomp:/etc/profile.json", "seccomp"),
        ("credentialspec:file://x", "Windows"),
        ("apparmor:", "apparmor"),
        ("whatever", "none of"),
    ] {
        let message = no("dockerSecurityOptions[0]", json!({"dockerSecurityOptions": [text]}));
        assert!(message.contains(word), "{text}: {message}");
    }
}

#[test]
fn groups_are_names_or_numbers() {
    yes(json!({"groups": ["audio", "50"]}));
    for group in ["a:b", "a b", "4294967295"] {
        no("groups[0]", json!({"groups": [group]}));
    }
}

#[test]
fn swap_is_beyond_a_memory_that_is_known() {
    let swap =
        |mib: u64| json!({"linuxParameters": {"maxSwap": mib, "swappiness": 60, "sharedMemorySize": 128}});
    yes(swap(64));
    let mut without_memory = definition(json!({"memory": "128"}), swap(64));
    without_memory["containerDefinitions"][0]["memory"] = Value::Null;
    refused(&format!("{C}.linuxParameters.maxSwap"), without_memory);
    // ECS's default is what a kernel with cgroup v2 does; anything else it cannot do.
    for swappiness in [1, 59, 100] {
        no("linuxParameters.swappiness", json!({"linuxParameters": {"swappiness": swappiness}}));
    }
}

#[test]
fn links_lead_to_other_containers_without_a_circle() {
    let of = |mode: &str, links: &[(&str, &str)], disabled: &str| {
        let containers: Vec<Value> = ["a", "b", "c"]
            .iter()
            .map(|name| {
                let own: Vec<&str> =
                    links.iter().filter(|(from, _)| from == name).map(|(_, link)| *link).collect();
                json!({"name": name, "image": "i", "memory": 6, "links": own, "disableNetworking": disabled == *name})
            })
            .collect();
        json!({"family": "f", "networkMode": mode, "containerDefinitions": containers})
    };
    accepted(of("bridge", &[("a", "b:db"), ("a", "c"), ("b", "c:cache")], ""));
    refused("containerDefinitions[0].links[0]", of("bridge", &[("a", "nobody:x")], ""));
    refused("containerDefinitions[0].links[0]", of("bridge", &[("a", "a")], ""));
    refused("containerDefinitions[0].links[0]", of("bridge", &[("a", "b:")], ""));
    refused("containerDefinitions[0].links[0]", of("bridge", &[("a", "b")], "b"));
    refused("containerDefinitions[0].links", of("bridge", &[("a", "b")], "a"));
    refused("containerDefinitions[0].links", of("host", &[("a", "b")], ""));
    let circle = super::error(of("bridge", &[("a", "b"), ("b", "a")], ""));
    assert_eq!(circle.problems().count(), 2, "{circle}");
}

#[test]
fn devices_are_asked_for_by_kind_and_number() {
    let of = |kind: &str, value: &str| json!({"resourceRequirements": [{"type": kind, "value": value}]});
    yes(of("GPU", "2"));
    yes(of("fpga", "1"));
    for value in ["0", "65", "-1", "one", "1.5"] {
        no("resourceRequirements[0].value", of("GPU", value));
    }
    no("resourceRequirements[0].type", of("InferenceAccelerator", "x"));
    no("resourceRequirements[0].type", of("a b", "1"));
    let twice = json!({"type": "GPU", "value": "1"});
    no("resourceRequirements[1].type", json!({"resourceRequirements": [twice.clone(), twice]}));
}

#[test]
fn a_range_of_ports_takes_the_place_of_a_port() {
    let of = |mapping: Value| json!({"portMappings": [mapping]});
    yes(of(json!({"containerPortRange": "8000-8010", "protocol": "udp", "hostPort": 0})));
    yes(of(json!({"containerPortRange": "", "containerPort": 80})));
    yes(of(json!({"containerPortRange": "80-80", "containerPort": 0})));
    for text in ["80", "81-80", "0-5", "1-65536", "a-b"] {
        no("portMappings[0].containerPortRange", of(json!({"containerPortRange": text})));
    }
    no("portMappings[0].containerPort", of(json!({"containerPort": 0})));
    no("portMappings[0].containerPortRange", of(json!({"containerPortRange": "1-2", "containerPort": 1})));
    no("portMappings[0].hostPort", of(json!({"containerPortRange": "1-2", "hostPort": 1})));
    refused("containerDefinitions", definition(json!({}), of(json!({"containerPortRange": "1-501"}))));
    let host =
        accepted(definition(json!({"networkMode": "host"}), of(json!({"containerPortRange": "80-82"}))));
    let ports = lighter_model::resources::required_resources(&host).host_ports;
    assert_eq!(ports.iter().map(|port| port.port).collect::<Vec<_>>(), [80, 81, 82]);
}

#[test]
fn a_user_namespace_goes_with_nothing_of_the_hosts() {
    let of = |task: Value| definition(task, json!({}));
    accepted(of(json!({"usernsMode": "auto", "pidMode": "task", "ipcMode": "task", "networkMode": "none"})));
    accepted(of(json!({"usernsMode": "host", "pidMode": "host"})));
    for member in ["pidMode", "ipcMode", "networkMode"] {
        refused(member, of(json!({"usernsMode": "auto", member: "host"})));
    }
    refused("usernsMode", of(json!({"usernsMode": "private"})));
    let privileged = definition(json!({"usernsMode": "auto"}), json!({"privileged": true}));
    refused(&format!("{C}.privileged"), privileged);
}

#[test]
fn ranges_of_the_host_do_not_overlap() {
    let of = |mode: &str, mappings: Value| {
        definition(json!({"networkMode": mode}), json!({"portMappings": mappings}))
    };
    let at = format!("{C}.portMappings[1]");
    let ranges = |second: &str| json!([{"containerPortRange": "80-90"}, {"containerPortRange": second}]);
    refused(&format!("{at}.containerPortRange"), of("host", ranges("90-95")));
    refused(&format!("{at}.containerPortRange"), of("host", ranges("85-86")));
    accepted(of("host", ranges("91-95")));
    refused(
        &format!("{at}.hostPort"),
        of("host", json!([{"containerPortRange": "80-90"}, {"containerPort": 85}])),
    );
    let port_first = json!([{"containerPort": 85}, {"containerPortRange": "80-90"}]);
    refused(&format!("{at}.containerPortRange"), of("host", port_first));
    let other_protocol = json!([{"containerPortRange": "80-90"}, {"containerPort": 85, "protocol": "udp"}]);
    accepted(of("host", other_protocol));
    // In bridge mode the node picks the host ports.
    accepted(of("bridge", ranges("90-95")));
}

#[test]
fn a_container_without_networking_maps_no_port() {
    let ports = json!([{"containerPort": 80}]);
    no("portMappings", json!({"disableNetworking": true, "portMappings": ports}));
}
