//! What goes wrong in a simulated world, and when.
//! In: a world. Out: broken connections, nodes, planes and stores, until the trouble is over.
//! Never: breaks what the design does not promise to survive (a wall clock that goes back while an old
//! snapshot is restored: terms would be lower than those that nodes have seen; a copy of the store's
//! file put back without a new incarnation, once it has overtaken what nodes have seen of it).

mod machine;

pub(crate) use machine::mend_for_ever;

use crate::node::Node;
use crate::store::{LEASE_MS, Snapshot};
use crate::watcher::Replica;
use crate::world::World;
use lighter_control::store::Level;
use lighter_control::time::timeout;
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

macro_rules! kinds {
    ($($name:ident,)*) => {
        /// One kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($name,)*
        }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    AgentKilled,
    NodeRebooted,
    DiskLost,
    Partition,
    MostSilent,
    ConnectionCut,
    SlowReader,
    CommitsUnknown,
    CommitsSlow,
    StoreFull,
    PlanePaused,
    PlaneKilled,
    LeaderChanged,
    SnapshotRestored,
    ClonedIdentity,
    ClockJump,
    ForgedReport,
    ReplayedReport,
    AgentReplaced,
    Rejoined,
    SlowWatcher,
}

/// Makes trouble until it is over, then heals everything.
pub(crate) async fn trouble(world: Rc<World>, replica: Rc<RefCell<Replica>>) {
    let mut snapshot = world.store.snapshot();
    let until = world.now_ms() + world.shape.trouble_ms;
    while world.now_ms() < until {
        let pause = world.luck.borrow_mut().below(world.shape.fault_pause_ms * 2);
        world.sleep(pause).await;
        if world.luck.borrow_mut().percent(15) {
            snapshot = world.store.snapshot();
            world.say(format_args!("a snapshot is taken at {}", snapshot.sequence));
        }
        let Some(kind) = world.luck.borrow_mut().pick(&world.shape.faults) else { continue };
        world.say(format_args!("fault: {kind:?}"));
        match kind {
            Kind::SnapshotRestored => {
                set_back(&world, &snapshot, &replica).await;
                snapshot = world.store.snapshot();
            }
            _ => strike(&world, kind).await,
        }
    }
    heal(&world);
}

fn some_node(world: &World) -> Option<Rc<Node>> {
    let nodes = world.nodes.borrow().clone();
    world.luck.borrow_mut().pick(&nodes)
}

/// For a while from now on, beside what else happens.
fn for_a_while(world: &Rc<World>, most_ms: u64, end: impl Fn(&World) + 'static) {
    let ms = world.luck.borrow_mut().between(200, most_ms);
    let at = world.clone();
    world.spawn(async move {
        at.sleep(ms).await;
        end(&at);
    });
}

async fn strike(world: &Rc<World>, kind: Kind) {
    match kind {
        Kind::Partition | Kind::MostSilent => partition(world, kind == Kind::MostSilent),
        Kind::CommitsUnknown => {
            world.store.unknown_percent.set(world.luck.borrow_mut().between(5, 60));
            for_a_while(world, 10_000, |world| world.store.unknown_percent.set(0));
        }
        Kind::CommitsSlow => {
            world.store.slowest_ms.set(world.luck.borrow_mut().between(100, 4_000));
            for_a_while(world, 10_000, |world| world.store.slowest_ms.set(5));
        }
        Kind::StoreFull => {
            let exhausted = world.luck.borrow_mut().percent(30);
            world.store.set_level(if exhausted { Level::Exhausted } else { Level::Reserve });
            for_a_while(world, 8_000, |world| world.store.set_level(Level::Free));
        }
        Kind::ClockJump => {
            let ms = i64::try_from(world.luck.borrow_mut().between(0, 3_600_000)).unwrap();
            let back = world.luck.borrow_mut().percent(50);
            let restores = world.shape.faults.contains(&Kind::SnapshotRestored);
            let ms = if back && !restores { -ms } else { ms };
            world.clock_offset_ms.fetch_add(ms, Ordering::Relaxed);
        }
        Kind::PlanePaused | Kind::PlaneKilled | Kind::LeaderChanged => plane(world, kind).await,
        Kind::Rejoined => machine::rejoin(world).await,
        Kind::SlowWatcher => {
            world.watcher_rests.set(true);
            for_a_while(world, 60_000, |world| world.watcher_rests.set(false));
        }
        _ => node(world, kind).await,
    }
}

fn partition(world: &Rc<World>, most: bool) {
    let nodes = world.nodes.borrow().clone();
    let percent = if most { 60 } else { world.luck.borrow_mut().between(1, 40) };
    let cut: Vec<Rc<Node>> = nodes.into_iter().filter(|_| world.luck.borrow_mut().percent(percent)).collect();
    cut.iter().for_each(|node| {
        node.cut_off.set(true);
        node.cut_since.set(node.cut_since.get().or(Some(world.now_ms())));
    });
    for_a_while(world, 60_000, move |_| {
        cut.iter().for_each(|node| {
            node.cut_off.set(false);
            node.cut_since.set(None);
        })
    });
}

async fn plane(world: &Rc<World>, kind: Kind) {
    let planes = world.planes.borrow().clone();
    let leader = world.store.leader(world.now_ms()).and_then(|id| planes.get(id).cloned());
    let Some(plane) = leader.or_else(|| world.luck.borrow_mut().pick(&planes)) else { return };
    match kind {
        Kind::PlanePaused => {
            plane.paused.set(true);
            for_a_while(world, 3 * LEASE_MS, move |_| plane.paused.set(false));
        }
        Kind::PlaneKilled => {
            plane.kill(world);
            let ms = world.luck.borrow_mut().between(0, 15_000);
            world.sleep(ms).await;
            plane.start(world);
        }
        // The lead is given up, by word of mouth or because no renewal arrives, while the process goes on.
        _ if world.luck.borrow_mut().percent(50) => {
            plane.lease.borrow().end();
            world.store.vacate();
        }
        _ => {
            plane.deaf.set(true);
            for_a_while(world, 3 * LEASE_MS, move |_| plane.deaf.set(false));
        }
    }
}

async fn node(world: &Rc<World>, kind: Kind) {
    let Some(node) = some_node(world) else { return };
    match kind {
        Kind::AgentKilled | Kind::NodeRebooted | Kind::DiskLost => {
            node.kill(world);
            if kind == Kind::NodeRebooted {
                node.disk.borrow_mut().reboot(world.now_ms());
            } else if kind == Kind::DiskLost {
                *node.disk.borrow_mut() = Default::default();
                node.wiped.set(node.wiped.get() + 1);
            }
            let ms = world.luck.borrow_mut().between(0, 5_000);
            world.sleep(ms).await;
            node.start(world);
        }
        Kind::ConnectionCut => node.hang_up(world),
        Kind::SlowReader => {
            node.slow.set(true);
            for_a_while(world, 60_000, move |_| node.slow.set(false));
        }
        Kind::ClonedIdentity => clone(world, &node).await,
        Kind::AgentReplaced => machine::replace_agent(world, &node).await,
        Kind::ReplayedReport => node.replay.set(true),
        Kind::ForgedReport => {
            let own = node.id.borrow().clone();
            let model = world.model.borrow();
            let foreign = model.tasks.values().find(|task| task.instance != own);
            *node.forge.borrow_mut() = foreign.map(|task| task.id.clone());
        }
        _ => {}
    }
}

/// Another agent with the same certificate says hello while the first has its session.
async fn clone(world: &Rc<World>, node: &Rc<Node>) {
    let before = node.session.get();
    let Some((plane, _)) = before else { return };
    let plane = world.planes.borrow()[plane].clone();
    let id = node.id.borrow().clone();
    let Some(mut end) = plane.connect(world, node.index, &id) else { return };
    let hello = v1::node_message::Message::Hello(node.hello("a clone"));
    let _ = end.send.send(v1::NodeMessage { message: Some(hello) });
    let answer = timeout(Duration::from_secs(20), end.receive.recv()).await;
    end.connection.node_end.cancel();
    end.connection.control_end.cancel();
    let greeted =
        matches!(answer, Some(Some(Ok(v1::ControlMessage { message: Some(FromControl::Hello(_)), .. }))));
    let well = node.session.get() == before && !node.cut_off.get() && !plane.paused.get();
    if greeted && well && world.shape.faults.iter().all(|kind| quiet(*kind)) {
        world.fail(format!("a second agent speaks for node {}", node.index));
    }
}

/// Faults that make no node silent for its control plane.
fn quiet(kind: Kind) -> bool {
    !matches!(kind, Kind::Partition | Kind::MostSilent | Kind::PlanePaused | Kind::SlowReader)
}

/// Every plane stops, an old copy is put back, and one starts again.
async fn set_back(world: &Rc<World>, snapshot: &Snapshot, replica: &Rc<RefCell<Replica>>) {
    let planes = world.planes.borrow().clone();
    planes.iter().for_each(|plane| plane.kill(world));
    replica.borrow_mut().forget();
    let incarnation = format!("store {:x}", world.luck.borrow_mut().draw());
    world.say(format_args!("set back to {}, now {incarnation}", snapshot.sequence));
    world.store.restore(snapshot, incarnation);
    world.history.borrow_mut().set_back(world);
    world.model.borrow_mut().set_back(&snapshot.records);
    world.sleep(1_000).await;
    planes.iter().for_each(|plane| plane.start(world));
}

fn heal(world: &Rc<World>) {
    world.say(format_args!("the trouble is over"));
    world.over.set(true);
    world.store.unknown_percent.set(0);
    world.store.slowest_ms.set(5);
    world.store.set_level(Level::Free);
    for plane in world.planes.borrow().iter() {
        plane.paused.set(false);
        plane.deaf.set(false);
    }
    for node in world.nodes.borrow().iter() {
        node.cut_off.set(false);
        node.cut_since.set(None);
        node.slow.set(false);
        machine::heal(world, node);
    }
    world.watcher_rests.set(false);
}
