//! Members of a container definition that only a running container shows: a range of ports, a link, a
//! file of variables, no network. In: a world. Out: assertions on TCP, /proc and what a program sees.

use super::FIRST;
use super::control::wait;
use super::streams::Task;
use super::world::World;
use lighter_proto::v1::TaskStatus;
use std::io::{Read, Write};
use std::net::TcpStream;

pub(super) fn run() {
    let mut world = World::new();
    let file = world.config.data_dir.join("web.env");
    std::fs::write(&file, "# of the node\nFROM_FILE=a b\nBOTH=file\n").unwrap();
    let (image, file) = (world.image(), file.display().to_string());
    let serve = "busybox mkdir /w; for p in 8000 8001 8002; do busybox mkdir /w/$p; echo on $p > /w/$p/index.html; busybox httpd -p $p -h /w/$p; done; exec sleep 1000";
    let idle = "exec sleep 1000";
    world.control.define(
        "members:1",
        &format!(
            r#"{{"family":"members","containerDefinitions":[
              {{"name":"web","image":"{image}","memory":32,"stopTimeout":1,"command":["sh","-c","{serve}"],
                "portMappings":[{{"containerPortRange":"8000-8002"}}]}},
              {{"name":"main","image":"{image}","memory":32,"stopTimeout":1,"command":["sh","-c","{idle}"],
                "links":["web:store"],"environment":[{{"name":"BOTH","value":"definition"}}],
                "environmentFiles":[{{"type":"file","value":"{file}"}}]}},
              {{"name":"alone","image":"{image}","memory":32,"stopTimeout":1,"command":["sh","-c","{idle}"],"disableNetworking":true}}]}}"#
        ),
    );
    world.start();
    world.control.assign(FIRST, "members:1");
    let running = world.control.wait_status(FIRST, TaskStatus::Running);
    let ports: Vec<(u32, u32)> =
        running.containers[0].network_bindings.iter().map(|b| (b.container_port, b.host_port)).collect();
    let first = ports[0].1;
    assert_eq!(ports, [(8000, first), (8001, first + 1), (8002, first + 2)], "as many host ports in a row");
    for (inside, host) in ports {
        let page = wait("the page", || fetch(host), || format!("{inside} at {host}"));
        assert_eq!(page, format!("on {inside}\n"));
    }
    let main = Task(&world);
    let seen = main.output("busybox wget -q -O - http://store:8001/; echo $FROM_FILE, $BOTH");
    assert_eq!(seen, "on 8001\na b, definition\n");
    let alone = running.containers.iter().find(|container| container.name == "alone").unwrap();
    let links = std::fs::read_to_string(format!("/proc/{}/net/dev", alone.pid)).unwrap();
    let links: Vec<&str> =
        links.lines().filter_map(|line| line.split_once(':')).map(|l| l.0.trim()).collect();
    assert_eq!(links, ["lo"]);
    world.control.stop(FIRST, "");
    world.control.wait_status(FIRST, TaskStatus::Stopped);
    world.assert_nothing_left();
}

fn fetch(port: u32) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap())).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.split_once("\r\n\r\n")?.1.to_owned())
}
