//! Sends every datagram back: the UDP server of the test image, which busybox lacks.
//! In: ports as arguments. Out: the datagrams. Owns: one thread a port. Never: ends by itself.
//! Compiled by the harness with `rustc -C target-feature=+crt-static`, because the image has no C library.

use std::net::UdpSocket;

fn main() {
    let threads: Vec<_> = std::env::args()
        .skip(1)
        .map(|port| std::thread::spawn(move || echo(&UdpSocket::bind(format!("0.0.0.0:{port}")).unwrap())))
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
}

fn echo(socket: &UdpSocket) {
    let mut datagram = [0; 65_536];
    while let Ok((length, from)) = socket.recv_from(&mut datagram) {
        let _ = socket.send_to(&datagram[..length], from);
    }
}
