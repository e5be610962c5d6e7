//! Port mappings: static and dynamic, tcp and udp, from outside, the loopback and other containers.

use super::Scenario;
use crate::node::shell_task;
use crate::world::World;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

pub(super) const ALL: &[Scenario] = &[
    ("ports_static_and_dynamic", ports_static_and_dynamic),
    ("ports_udp", ports_udp),
    ("port_in_use_names_its_owner", port_in_use_names_its_owner),
    ("host_and_none_network", host_and_none_network),
];

/// A container that serves its own name on port 80.
fn server(name: &str, image: &str, host_port: u16) -> Value {
    json!({
        "name": name, "image": image, "memory": 64,
        "portMappings": [{ "containerPort": 80, "hostPort": host_port }],
        "command": ["sh", "-c", format!("mkdir /tmp/w; echo {name} > /tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w")],
    })
}

/// Two containers of one task on one container port; each is reached on its own host port, from everywhere.
fn ports_static_and_dynamic(world: &mut World) -> Result<()> {
    let node = world.node();
    let image = world.image();
    let task = node.run_until_running(&json!({
        "family": "twins", "containerDefinitions": [server("fixed", &image, 8081), server("free", &image, 0)],
    }))?;
    ensure!(task.host_port("fixed", 80, "tcp")? == 8081, "{}", task.0);
    let free = task.host_port("free", 80, "tcp")?;
    ensure!(free >= 1024 && free != 8081, "the dynamic port is {free}");
    let pids = [task.pid("fixed")?, task.pid("free")?];
    for (name, port) in [("fixed", 8081), ("free", free)] {
        // The loopback, the host's own address, and from inside both containers (the hairpin) to the host's address.
        let mut places =
            vec![format!("curl -sf http://127.0.0.1:{port}/"), format!("curl -sf http://10.0.2.15:{port}/")];
        places.extend(pids.map(|pid| format!("nsenter -t {pid} -n curl -sf -m 5 http://10.0.2.15:{port}/")));
        for place in places {
            let answer = node.guest.until(10, &place)?;
            ensure!(answer == name, "{place} answered {answer:?} for {name}");
        }
    }
    let other = shell_task("client", &image, &format!("wget -qO- http://10.0.2.15:{free}/"));
    let client = node.run_until_stopped(&other)?;
    ensure!(client.exit_code("main")? == Some(0), "another task could not fetch: {}", client.0);
    node.stop(task.id()).map(drop)
}

/// A datagram through a mapping and its answer back, on a static and a dynamic port.
fn ports_udp(world: &mut World) -> Result<()> {
    let node = world.node();
    let mut definition = shell_task("echo", &world.image(), "exec deckhand udp-echo 53 54");
    definition["containerDefinitions"][0]["portMappings"] = json!([
        { "containerPort": 53, "hostPort": 5353, "protocol": "udp" },
        { "containerPort": 54, "hostPort": 0, "protocol": "udp" },
    ]);
    let task = node.run_until_running(&definition)?;
    for port in [5353, task.host_port("main", 54, "udp")?] {
        for host in ["127.0.0.1", "10.0.2.15"] {
            // bash's socket is connected: an answer from another address or port would not reach it.
            let ask = format!(
                "exec 3<>/dev/udp/{host}/{port} && echo ahoy >&3 && timeout 2 head -1 <&3 | grep ahoy"
            );
            node.guest.until(20, &ask)?;
        }
    }
    node.stop(task.id()).map(drop)
}

/// A host port that a foreign process has: the task stops with a reason that names it, and others go on.
fn port_in_use_names_its_owner(world: &mut World) -> Result<()> {
    let node = world.node();
    node.guest
        .sh("setsid busybox httpd -f -p 8085 </dev/null >/dev/null 2>&1 & echo $! > /tmp/foreign.pid")?;
    node.guest.until(10, "ss -Htln 'sport = 8085' | grep 8085")?;
    let task = node.run_until_stopped(&json!({
        "family": "late", "containerDefinitions": [server("main", &world.image(), 8085)],
    }));
    node.guest.sh("kill $(cat /tmp/foreign.pid); rm /tmp/foreign.pid")?;
    let task = task?;
    let words = format!("{} {}", task.stopped_reason(), task.container("main")?["reason"]);
    ensure!(words.contains("8085") && words.contains("busybox"), "the reason is {words:?}");
    Ok(())
}

/// networkMode none has a loopback and nothing else; host is refused by a node that does not allow it.
fn host_and_none_network(world: &mut World) -> Result<()> {
    let node = world.node();
    let mut alone = shell_task("alone", &world.image(), "ip -o link | wc -l; ip -o link");
    alone["networkMode"] = json!("none");
    let task = node.run_until_stopped(&alone)?;
    let log = node.logs(&task, "main")?;
    ensure!(log.contains("lo") && !log.contains("eth0"), "links in networkMode none: {log}");
    let mut host = shell_task("host", &world.image(), "true");
    host["networkMode"] = json!("host");
    let refused = node.run_until_stopped(&host)?;
    let words = refused.0.to_string();
    ensure!(words.contains("allow_host_namespaces"), "the refusal does not name the setting: {words}");
    Ok(())
}
