//! What the test image needs and busybox lacks. `udp-echo PORT…` sends every datagram back;
//! `crowd` makes threads until the kernel refuses, says how many, and stays.
//! In: arguments. Out: datagrams, or one line. Never: ends by itself.
//! Compiled by the harness with `rustc -C target-feature=+crt-static`, because the image has no C library.

use std::net::UdpSocket;
use std::thread;

/// More than any limit that a default container has.
const CROWD_MAX: u32 = 20_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((verb, ports)) if verb == "udp-echo" => udp_echo(ports),
        Some((verb, [])) if verb == "crowd" => crowd(),
        _ => panic!("usage: deckhand udp-echo PORT… | crowd"),
    }
}

fn udp_echo(ports: &[String]) {
    for port in ports {
        let socket = UdpSocket::bind(format!("0.0.0.0:{port}")).unwrap();
        thread::spawn(move || {
            let mut datagram = [0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], from);
            }
        });
    }
    sleep_for_ever();
}

/// The pids controller counts threads as it counts processes, and threads are cheap.
fn crowd() {
    let started = (0..CROWD_MAX)
        .take_while(|_| thread::Builder::new().stack_size(16 * 1024).spawn(sleep_for_ever).is_ok())
        .count();
    println!("crowd of {started}");
    sleep_for_ever();
}

fn sleep_for_ever() {
    loop {
        thread::park();
    }
}
