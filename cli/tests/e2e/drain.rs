//! A node is drained and comes back, by the commands a person types, against a real control plane and
//! a node with a real session over mTLS that does what it is told and runs nothing.

use super::control_plane::Cluster;
use super::node;
use super::program::until;
use serde_json::Value;

fn shown(cluster: &Cluster) -> Value {
    serde_json::from_str(&cluster.run(&["node", "show", "n1", "-o", "json"]).out).unwrap()
}

#[test]
fn a_drained_node_is_empty_gets_nothing_and_comes_back() {
    let cluster = Cluster::start();
    node::join(&cluster, "n1");
    until("the node is there", || shown(&cluster)["status"] == "ACTIVE");
    let ran = cluster.run(&["run", &cluster.web()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    until("the task runs", || shown(&cluster)["runningTasksCount"] == 1);
    let drained = cluster.run(&["node", "drain", "n1", "--reason", "a new kernel", "--stop-tasks", "--wait"]);
    assert_eq!(drained.code, 0, "{}", drained.err);
    let after = shown(&cluster);
    assert_eq!((&after["status"], &after["runningTasksCount"]), (&"DRAINING".into(), &0.into()));
    assert_eq!(after["statusReason"], "a new kernel");
    assert_ne!(cluster.run(&["run", "web"]).code, 0, "nowhere else to go");
    assert_eq!(cluster.run(&["node", "activate", "n1"]).code, 0);
    assert_eq!(shown(&cluster)["status"], "ACTIVE");
    assert_eq!(cluster.run(&["run", "web"]).code, 0);
    assert_eq!(cluster.run(&["node", "drain", "n2"]).code, 4, "no such node");
}
