//! The state of a cluster as a stream, and the watch that goes on from it: together they are the state.

use crate::fake_node::{joined, report, stopped_report};
use crate::support::{PATIENCE, definition_json, register, run_request, start};
use lighter_proto::v1;
use lighter_proto::v1::event::Subject;
use lighter_proto::v1::lighter_client::LighterClient;
use prost::Message;
use std::collections::BTreeMap;
use tonic::transport::Channel;

type Admin = LighterClient<Channel>;

/// A watcher's copy; what follows from the tasks is left out.
#[derive(Debug, Clone, Default, PartialEq)]
struct Replica {
    sequence: u64,
    cluster: v1::Cluster,
    definitions: BTreeMap<String, v1::TaskDefinition>,
    instances: BTreeMap<String, v1::ContainerInstance>,
    tasks: BTreeMap<String, v1::Task>,
}

impl Replica {
    async fn load(admin: &mut Admin) -> (Self, usize) {
        let request = v1::StreamClusterStateRequest::default();
        let mut chunks = admin.stream_cluster_state(request).await.unwrap().into_inner();
        let (mut replica, mut count, mut last) = (Self::default(), 0, false);
        while let Some(chunk) = chunks.message().await.unwrap() {
            assert!(!last, "the last chunk is the last");
            assert!(chunk.encoded_len() <= 256 << 10, "{} bytes", chunk.encoded_len());
            assert!(count == 0 || chunk.sequence == replica.sequence, "one moment");
            replica.sequence = chunk.sequence;
            if let Some(cluster) = chunk.cluster {
                replica.put_cluster(cluster);
            }
            chunk.task_definitions.into_iter().for_each(|definition| replica.put_definition(definition));
            chunk.container_instances.into_iter().for_each(|instance| replica.put_instance(instance));
            chunk.tasks.into_iter().for_each(|task| replica.put_task(task));
            (count, last) = (count + 1, chunk.last_chunk);
        }
        assert!(last);
        (replica, count)
    }

    fn put_cluster(&mut self, mut cluster: v1::Cluster) {
        cluster.registered_container_instances_count = 0;
        (cluster.running_tasks_count, cluster.pending_tasks_count) = (0, 0);
        self.cluster = cluster;
    }

    fn put_definition(&mut self, definition: v1::TaskDefinition) {
        let name = format!("{}:{}", definition.family, definition.revision);
        self.definitions.insert(name, definition);
    }

    fn put_instance(&mut self, mut instance: v1::ContainerInstance) {
        instance.remaining_resources = None;
        (instance.running_tasks_count, instance.pending_tasks_count) = (0, 0);
        self.instances.insert(instance.container_instance_id.clone(), instance);
    }

    fn put_task(&mut self, task: v1::Task) {
        self.tasks.insert(task.task_id.clone(), task);
    }

    fn apply(&mut self, event: v1::Event) {
        self.sequence = event.sequence;
        match event.subject.unwrap() {
            Subject::TaskStateChange(change) => self.put_task(change.task.unwrap()),
            Subject::ContainerInstanceStateChange(change) => {
                self.put_instance(change.container_instance.unwrap());
            }
            Subject::TaskDefinitionStateChange(change) => {
                self.put_definition(change.task_definition.unwrap());
            }
            Subject::ClusterStateChange(change) => self.put_cluster(change.cluster.unwrap()),
            Subject::ServiceStateChange(_) | Subject::ServiceAction(_) => {}
            Subject::RecordDeleted(deleted) => {
                let gone = match deleted.kind() {
                    v1::RecordKind::Task => self.tasks.remove(&deleted.id).is_some(),
                    v1::RecordKind::ContainerInstance => self.instances.remove(&deleted.id).is_some(),
                    v1::RecordKind::TaskDefinition => self.definitions.remove(&deleted.id).is_some(),
                    other => panic!("{other:?}"),
                };
                assert!(gone, "{deleted:?} was never there");
            }
        }
    }
}

async fn changes(running: &crate::support::Running, admin: &mut Admin) {
    let node = joined(running, "one").await;
    let mut session = node.connect(running).await.unwrap();
    let tasks = admin.run_task(run_request("web", 10)).await.unwrap().into_inner().tasks;
    let mut assigned = 0;
    while assigned < 10 {
        assigned += session.assignments().await.len();
    }
    session.report(vec![report(&tasks[0].task_id, 1, v1::TaskStatus::Running)]).await;
    session.report(vec![stopped_report(&tasks[1].task_id, 1, 3)]).await;
    let tags = vec![v1::Tag { key: "a".into(), value: "b".into() }];
    let resource = "cluster/default".to_owned();
    admin.tag_resource(v1::TagResourceRequest { resource, tags: tags.clone() }).await.unwrap();
    let resource = format!("container-instance/default/{}", node.id);
    admin.tag_resource(v1::TagResourceRequest { resource, tags }).await.unwrap();
    register(admin, &definition_json("old", 1, 6, None)).await;
    let request = v1::DeregisterTaskDefinitionRequest { task_definition: "old:1".into() };
    admin.deregister_task_definition(request).await.unwrap();
    let task_definitions = vec!["old:1".to_owned()];
    admin.delete_task_definitions(v1::DeleteTaskDefinitionsRequest { task_definitions }).await.unwrap();
    // Deregistering sweeps what is left, also the deleted revision.
    let request = v1::DeregisterContainerInstanceRequest {
        container_instance: node.id.clone(),
        force: true,
        ..Default::default()
    };
    admin.deregister_container_instance(request).await.unwrap();
}

#[tokio::test]
async fn the_state_at_a_sequence_and_the_watch_after_it_are_the_state() {
    let running = start().await;
    let mut admin = running.admin().await;
    for _ in 0..60 {
        // Some 10 kB each: more than one chunk.
        let image = "x".repeat(10_000);
        let json = format!(
            r#"{{"family":"big","containerDefinitions":[{{"name":"c","image":"{image}","memory":6}}]}}"#
        );
        register(&mut admin, &json).await;
    }
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    let (mut replica, chunks) = Replica::load(&mut admin).await;
    assert!(chunks > 2, "{chunks}");
    changes(&running, &mut admin).await;
    let (now, _) = Replica::load(&mut admin).await;
    assert!(now.sequence > replica.sequence + 20);
    let request = v1::WatchEventsRequest { after_sequence: replica.sequence, ..Default::default() };
    let mut events = admin.watch_events(request).await.unwrap().into_inner();
    while replica.sequence < now.sequence {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        replica.apply(event);
    }
    assert_eq!(replica, now);
    assert!(!now.definitions.contains_key("old:1"), "a deleted revision that nobody uses is gone");
}
