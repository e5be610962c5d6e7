//! Host ports held by the shim.

use crate::support::Node;
use lighter_model::task_definition::TransportProtocol;
use lighter_runtime::{BindError, HostPortBind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

fn any(protocol: TransportProtocol, port: u16) -> HostPortBind {
    HostPortBind { protocol, ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port }
}

#[tokio::test]
async fn a_port_is_held_until_the_shim_ends_and_belongs_to_nobody_else() {
    let node = Node::new();
    let shim = node.shim().await;
    let tcp = shim.bind_ports(&[any(TransportProtocol::Tcp, 0)]).await.unwrap()[0].port;
    let udp = shim.bind_ports(&[any(TransportProtocol::Udp, 0)]).await.unwrap()[0].port;
    assert!(tcp != 0 && udp != 0);
    let refused = |error: std::io::Error| assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    // std sets SO_REUSEADDR on listeners: even so.
    refused(TcpListener::bind(("0.0.0.0", tcp)).unwrap_err());
    refused(TcpListener::bind(("127.0.0.1", tcp)).unwrap_err());
    refused(UdpSocket::bind(("0.0.0.0", udp)).unwrap_err());
    // Bound, not listening: a connection is refused at once.
    assert!(std::net::TcpStream::connect(("127.0.0.1", tcp)).is_err());
    // The same task may ask again.
    assert_eq!(shim.bind_ports(&[any(TransportProtocol::Tcp, tcp)]).await.unwrap()[0].port, tcp);
    assert_eq!(shim.status().await.unwrap().ports.len(), 2);
    node.leave_nothing(&shim).await;
    TcpListener::bind(("0.0.0.0", tcp)).expect("the port is free again");
    UdpSocket::bind(("0.0.0.0", udp)).expect("the port is free again");
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_of_the_list_is_bound() {
    let node = Node::new();
    let shim = node.shim().await;
    let foreign = TcpListener::bind("0.0.0.0:0").unwrap();
    let taken = foreign.local_addr().unwrap().port();
    let free = shim.bind_ports(&[any(TransportProtocol::Tcp, 0)]).await.unwrap()[0].port;
    let other = {
        // A port that is free now and after this block.
        let probe = TcpListener::bind("0.0.0.0:0").unwrap();
        probe.local_addr().unwrap().port()
    };
    let error = shim
        .bind_ports(&[any(TransportProtocol::Tcp, other), any(TransportProtocol::Tcp, taken)])
        .await
        .unwrap_err();
    match error {
        BindError::Port { port, errno, .. } => assert_eq!((port, errno), (taken, nix::libc::EADDRINUSE)),
        other => panic!("{other:?}"),
    }
    TcpListener::bind(("0.0.0.0", other)).expect("the first of the list was given back");
    let held: Vec<u16> = shim.status().await.unwrap().ports.iter().map(|bind| bind.port).collect();
    assert_eq!(held, [free]);
    let v6 = HostPortBind { protocol: TransportProtocol::Tcp, ip: IpAddr::V6(Ipv6Addr::LOCALHOST), port: 0 };
    assert_ne!(shim.bind_ports(&[v6]).await.unwrap()[0].port, 0);
    node.leave_nothing(&shim).await;
}
