//! Machines that begin anew, and agents of other versions.
//! In: a world, a node. Out: another agent on it, or another identity. Never: touches node 0, whose
//! identity the rivals' attributes hang on.

use crate::client::asker;
use crate::node::{Node, Speaks};
use crate::plane::cluster;
use crate::run::{leader, spend_token};
use crate::world::World;
use lighter_control::core::deregister::DeregisterInstance;
use lighter_control::core::drain::UpdateInstancesState;
use lighter_control::error::ApiError;
use lighter_model::status::ContainerInstanceStatus;
use std::rc::Rc;

/// Another version of the agent is started; now and then one that no control plane understands.
pub(super) async fn replace_agent(world: &Rc<World>, node: &Rc<Node>) {
    node.kill(world);
    let speaks = [Speaks::Before, Speaks::Present, Speaks::Next, Speaks::Unknown];
    let speaks = world.luck.borrow_mut().pick(&speaks).unwrap();
    node.speaks.set(speaks);
    world.say(format_args!("node {} speaks {speaks:?}", node.index));
    let ms = world.luck.borrow_mut().between(0, 5_000);
    world.sleep(ms).await;
    node.start(world);
}

/// At the end everyone runs an agent that is understood, and has an identity.
pub(super) fn heal(world: &Rc<World>, node: &Rc<Node>) {
    if node.speaks.get() == Speaks::Unknown {
        node.kill(world);
        node.speaks.set(Speaks::Present);
        node.start(world);
    }
}

/// A machine is set up anew under its old name; its old identity was deregistered by force, or is away.
pub(super) async fn rejoin(world: &Rc<World>) {
    let nodes = world.nodes.borrow().clone();
    let Some(node) = world.luck.borrow_mut().pick(&nodes).filter(|node| node.index > 0) else { return };
    let force = world.luck.borrow_mut().percent(60);
    let (at, node) = (world.clone(), node.clone());
    world.spawn(async move {
        if force {
            let instance = node.id.borrow().to_string();
            let instances = vec![instance.clone()];
            let command = DeregisterInstance { cluster: cluster(), instance, force };
            let context = leader(&at).await;
            let drain = UpdateInstancesState {
                cluster: cluster(),
                instances,
                draining: true,
                reason: None,
                deadline_unix_ms: None,
                stop_tasks: true,
            };
            let back = UpdateInstancesState { draining: false, stop_tasks: false, ..drain.clone() };
            // Whatever order they are decided in, it does not come back.
            let _ = tokio::join!(
                context.change(asker(), drain.clone()),
                context.change(asker(), command),
                context.change(asker(), drain),
                context.change(asker(), back),
            );
        }
        join_anew(&at, &node).await;
    });
}

async fn join_if_gone(world: &Rc<World>, node: &Rc<Node>) {
    use ContainerInstanceStatus::{Deregistering, Inactive};
    let context = leader(world).await;
    if node.joining.get() {
        return;
    }
    let id = node.id.borrow().clone();
    let instance = context.view.read(|shown| shown.state.instances.get(&id).cloned());
    if instance.is_none_or(|instance| [Deregistering, Inactive].contains(&instance.status)) {
        join_anew(world, node).await;
    }
}

async fn join_anew(world: &Rc<World>, node: &Rc<Node>) {
    if node.joining.replace(true) {
        return;
    }
    node.kill(world);
    *node.disk.borrow_mut() = Default::default();
    node.wiped.set(node.wiped.get() + 1);
    loop {
        world.sleep(1_000).await;
        let context = leader(world).await;
        match spend_token(&context, node.index, node.wiped.get()).await {
            Ok(id) => {
                world.say(format_args!("node {} is {id} now", node.index));
                *node.id.borrow_mut() = id;
                break;
            }
            Err(
                ApiError::InstanceNameTaken { .. }
                | ApiError::OutcomeUnknown
                | ApiError::StoreUnavailable
                | ApiError::NotLeader { .. }
                | ApiError::StoreFull { .. }
                | ApiError::ShuttingDown,
            ) => {}
            Err(error) => return world.fail(format!("node {} cannot join: {error}", node.index)),
        }
    }
    node.joining.set(false);
    node.start(world);
}

/// Machines that the store does not know, or has seen off, are set up anew.
pub(crate) async fn mend_for_ever(world: Rc<World>) {
    loop {
        world.sleep(5_000).await;
        let nodes = world.nodes.borrow().clone();
        for node in &nodes {
            join_if_gone(&world, node).await;
        }
    }
}
