//! A simulated control plane: the real writer, sessions and monitors on a simulated store and network.
//! In: a number, faults. Out: a `Context` while it serves, connections. Owns: its tasks.
//! Never: runs a line of its own where the product has one.

use crate::executor::Handle;
use crate::faults::Kind;
use crate::store::{LEASE_MS, serve};
use crate::world::{BEGIN_UNIX_MS, World};
use lighter_control::api::Context;
use lighter_control::core::Settings;
use lighter_control::core::audit::AuditAbandoned;
use lighter_control::core::instance::EnsureClusters;
use lighter_control::core::recovery::AwaitNodes;
use lighter_control::environment::Environment;
use lighter_control::error::SocketAddrText;
use lighter_control::identity::ca::Ca;
use lighter_control::session::convert::{self, Outgoing, Sent};
use lighter_control::session::registry::Sessions;
use lighter_control::session::run::{self, Identity};
use lighter_control::session::{link, monitor, queue, replace, tend};
use lighter_control::store::Lease;
use lighter_control::time;
use lighter_control::view::View;
use lighter_control::writer::{self, Committer, WriterHandle};
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_proto::v1;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Messages on their way to a session.
const ON_THE_WAY: usize = 16;

pub(crate) struct Plane {
    pub(crate) id: usize,
    /// Its process stands still.
    pub(crate) paused: Cell<bool>,
    /// Its renewals of the lead do not arrive.
    pub(crate) deaf: Cell<bool>,
    /// Its own word for how long it leads.
    pub(crate) lease: RefCell<Lease>,
    /// Times its process was started.
    pub(crate) runs: Cell<u64>,
    context: RefCell<Option<Context>>,
    handles: RefCell<Vec<Handle>>,
    connections: RefCell<Vec<Rc<Connection>>>,
}

/// Both ends of a connection, each cut by itself.
#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) node_end: CancellationToken,
    pub(crate) control_end: CancellationToken,
}

/// A node's end.
pub(crate) struct NodeEnd {
    pub(crate) send: mpsc::UnboundedSender<v1::NodeMessage>,
    pub(crate) receive: mpsc::Receiver<Result<Outgoing, Status>>,
    pub(crate) connection: Rc<Connection>,
}

pub(crate) fn cluster() -> ClusterName {
    "default".parse().unwrap()
}

/// One CA for all worlds: nothing is signed, and it is not part of the trace.
fn ca() -> Arc<Ca> {
    static CA: OnceLock<Arc<Ca>> = OnceLock::new();
    let open = || {
        let dir = tempfile::tempdir().unwrap();
        Arc::new(Ca::open(dir.path(), BEGIN_UNIX_MS).unwrap())
    };
    CA.get_or_init(open).clone()
}

/// Machines' wall clocks differ; not where an old snapshot is restored, see `faults`.
fn skew_ms(world: &World, id: usize) -> i64 {
    let restores = world.shape.faults.contains(&Kind::SnapshotRestored);
    if restores { 0 } else { i64::try_from(id).unwrap() * world.shape.skew_ms }
}

/// The world's wall clock, and luck of the plane's own.
fn environment(world: &World, id: usize) -> Environment {
    let begin = time::now() - Duration::from_millis(world.now_ms());
    let (offset, skew) = (world.clock_offset_ms.clone(), skew_ms(world, id));
    let state = AtomicU64::new(world.luck.borrow_mut().draw() ^ id as u64);
    let luck = move || {
        let mut luck = crate::luck::Luck::new(state.load(Ordering::Relaxed));
        let (high, low) = (luck.draw(), luck.draw());
        state.store(low ^ high.rotate_left(17), Ordering::Relaxed);
        u128::from(high) << 64 | u128::from(low)
    };
    let wall = move || {
        let ms = u64::try_from((time::now() - begin).as_millis()).unwrap();
        (BEGIN_UNIX_MS + ms).saturating_add_signed(skew + offset.load(Ordering::Relaxed))
    };
    Environment::simulated(wall, luck)
}

impl Plane {
    pub(crate) fn new(id: usize) -> Rc<Self> {
        Rc::new(Self {
            id,
            paused: Cell::new(false),
            deaf: Cell::new(false),
            lease: RefCell::new(Lease::none()),
            runs: Cell::new(0),
            context: RefCell::default(),
            handles: RefCell::default(),
            connections: RefCell::default(),
        })
    }

    /// What it serves with, when it does.
    pub(crate) fn context(&self) -> Option<Context> {
        self.context.borrow().clone()
    }

    fn own(&self, handle: Handle) {
        self.handles.borrow_mut().push(handle);
    }

    /// Starts the process: it waits for the lead, then serves.
    pub(crate) fn start(self: &Rc<Self>, world: &Rc<World>) {
        self.runs.set(self.runs.get() + 1);
        world.say(format_args!("plane {} starts", self.id));
        let (plane, at) = (self.clone(), world.clone());
        self.own(world.spawn(async move { plane.boot(at).await }));
    }

    /// kill -9.
    pub(crate) fn kill(&self, world: &World) {
        world.say(format_args!("plane {} is killed", self.id));
        self.context.borrow_mut().take();
        self.handles.take().iter().for_each(Handle::kill);
        for connection in self.connections.take() {
            connection.control_end.cancel();
            connection.node_end.cancel();
        }
        self.paused.set(false);
    }

    async fn boot(self: Rc<Self>, world: Rc<World>) {
        let environment = environment(&world, self.id);
        let settings = Settings {
            events_kept: world.shape.events_kept,
            heartbeat_ms: world.shape.heartbeat_ms,
            ..Settings::default()
        };
        let (writer, view) = loop {
            let view = Arc::new(View::default());
            let lease = Lease::none();
            *self.lease.borrow_mut() = lease.clone();
            let (committer, end) = Committer::pair(lease.clone());
            let serving = world.spawn(serve(world.clone(), self.id, end, lease));
            self.own(serving.clone());
            match writer::start_over(committer, settings, environment.clone(), view.clone()).await {
                Ok((writer, running)) => {
                    self.own(world.spawn(running));
                    break (writer, view);
                }
                Err(_) => serving.kill(),
            }
            world.sleep(1_000).await;
        };
        let context = context(&world, environment, writer, view);
        self.own(world.spawn(check_shown(world.clone(), self.id, context.view.clone())));
        self.own(world.spawn(renew(world.clone(), self.clone())));
        let incarnation = context.view.read(|shown| shown.incarnation.clone());
        while context.writer.submit(AwaitNodes { incarnation: incarnation.clone() }).await.unwrap_or(false) {}
        let made = context.writer.submit(EnsureClusters { clusters: vec![cluster()] }).await;
        let _ = (made, context.writer.submit(AuditAbandoned).await);
        self.own(world.spawn(monitor::watch_heartbeats(context.clone())));
        self.own(world.spawn(monitor::sweep(context.clone())));
        self.own(world.spawn(monitor::drain(context.clone())));
        self.own(world.spawn(replace::replace_lost(context.clone())));
        if world.shape.queue {
            self.own(world.spawn(queue::tend_queues(context.clone())));
        }
        if world.shape.services {
            self.own(world.spawn(tend::tend_services(context.clone())));
        }
        world.say(format_args!("plane {} serves", self.id));
        *self.context.borrow_mut() = Some(context);
    }

    /// A node's connection, when this plane serves.
    pub(crate) fn connect(
        self: &Rc<Self>,
        world: &Rc<World>,
        node: usize,
        id: &ContainerInstanceId,
    ) -> Option<NodeEnd> {
        let context = self.context()?;
        let connection = Rc::new(Connection::default());
        let (send, from_node) = mpsc::unbounded_channel();
        let (to_session, incoming) = mpsc::channel(ON_THE_WAY);
        let (out, from_session) = mpsc::channel(link::OUTGOING_DEPTH);
        let (to_node, receive) = mpsc::channel(ON_THE_WAY);
        let address = SocketAddrText(Some(([10, 0, 0, 1], u16::try_from(node).unwrap()).into()));
        let me = Identity { cluster: cluster(), id: id.clone(), address };
        self.own(world.spawn(run::serve(context, me, ReceiverStream::new(incoming), out)));
        let way = Way { world: world.clone(), plane: self.id, node, connection: connection.clone() };
        let back = Way { world: world.clone(), plane: self.id, node, connection: connection.clone() };
        world.spawn(up(way, from_node, to_session));
        world.spawn(down(back, from_session, to_node));
        self.connections.borrow_mut().retain(|connection| !connection.control_end.is_cancelled());
        self.connections.borrow_mut().push(connection.clone());
        Some(NodeEnd { send, receive, connection })
    }
}

fn context(world: &World, environment: Environment, writer: WriterHandle, view: Arc<View>) -> Context {
    let heartbeat_interval = Duration::from_millis(world.shape.heartbeat_ms);
    Context {
        view,
        writer,
        ca: ca(),
        environment,
        sessions: Arc::new(Sessions::new(heartbeat_interval)),
        logs: Arc::default(),
        streams: Default::default(),
        questions: Default::default(),
        snapshots: Default::default(),
        heartbeat_interval,
        settings: Default::default(),
        quotas: Default::default(),
        stop: CancellationToken::new(),
    }
}

/// Renews the lead, as `store/etcd/election.rs` does: the lease counts from the sending.
async fn renew(world: Rc<World>, plane: Rc<Plane>) {
    loop {
        world.sleep(LEASE_MS / 3).await;
        world.awake(plane.id).await;
        let sent = time::boot_ms();
        let way = world.luck.borrow_mut().between(0, 10);
        world.sleep(way).await;
        if plane.deaf.get() || !world.store.renew(plane.id, world.now_ms()) {
            continue;
        }
        world.sleep(way).await;
        world.awake(plane.id).await;
        plane.lease.borrow().extend(sent, Duration::from_millis(LEASE_MS));
    }
}

/// Compares what a plane shows with the store, whenever it changes.
async fn check_shown(world: Rc<World>, plane: usize, view: Arc<View>) {
    let mut from = view.read(|shown| shown.sequence);
    loop {
        let mut events = view.watch();
        while !matches!(events.recv().await, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
            from = view.read(|shown| {
                world.model.borrow_mut().shown(&world, plane, from, shown);
                shown.sequence
            });
        }
    }
}

/// One direction of a connection.
struct Way {
    world: Rc<World>,
    plane: usize,
    node: usize,
    connection: Rc<Connection>,
}

impl Way {
    /// The time a message takes; for ever while the node is cut off or the plane stands still.
    async fn pass(&self, slow: bool) {
        let node = self.world.nodes.borrow()[self.node].clone();
        let ms = self.world.luck.borrow_mut().between(0, 10);
        self.world.sleep(ms).await;
        if slow && node.slow.get() {
            self.world.sleep(4_000).await;
        }
        while node.cut_off.get() {
            self.world.sleep(100).await;
        }
        self.world.awake(self.plane).await;
    }
}

async fn up(
    way: Way,
    mut from_node: mpsc::UnboundedReceiver<v1::NodeMessage>,
    to_session: mpsc::Sender<Result<convert::NodeSaid, lighter_control::error::ApiError>>,
) {
    let cut = way.connection.control_end.clone();
    let carry = async {
        while let Some(first) = from_node.recv().await {
            let mut messages = vec![first];
            while let Ok(more) = from_node.try_recv() {
                messages.push(more);
            }
            way.pass(false).await;
            for message in messages {
                if to_session.send(convert::node_said(message)).await.is_err() {
                    return;
                }
            }
        }
        // The node is gone; the control plane learns of it when its own end is cut.
        std::future::pending::<()>().await;
    };
    tokio::select! { biased; () = cut.cancelled() => {}, () = carry => {} }
}

async fn down(
    way: Way,
    mut from_session: mpsc::Receiver<Sent>,
    to_node: mpsc::Sender<Result<Outgoing, Status>>,
) {
    let (cut, gone) = (way.connection.control_end.clone(), way.connection.node_end.clone());
    let carry = async {
        while let Some(message) = from_session.recv().await {
            way.pass(true).await;
            if to_node.send(message.map(|message| *message)).await.is_err() {
                // Nobody reads any more: what the session sends stays here until its end is cut.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! { biased; () = cut.cancelled() => {}, () = carry => {} }
    gone.cancel();
}
