//! Who asks for tasks: many calls at a time over a few connections with an administrator's certificate.
//! In: how many. Out: the ids, and when each call was sent. Never: goes on when a task was not placed.

use super::clock::now_ns;
use super::plane::Plane;
use super::workload::Workload;
use anyhow::{Context, Result};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

pub(crate) struct Callers(Vec<LighterClient<Channel>>);

/// A task that a call has answered with.
#[derive(Debug)]
pub(crate) struct Placed {
    pub task: String,
    pub instance: String,
    /// When the call was sent.
    pub sent_ns: u64,
    /// The number of the call.
    pub call: usize,
}

impl Callers {
    pub(crate) async fn connect(plane: &Plane, connections: usize) -> Result<Self> {
        let admin = plane.admin()?;
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(LighterClient::new(admin.connect(plane.address).await?));
        }
        Ok(Self(clients))
    }

    /// `tasks` tasks by `at_once` callers, each of which calls again when it has its answer.
    pub(crate) async fn place(
        &self,
        workload: &Workload,
        tasks: usize,
        at_once: usize,
    ) -> Result<Vec<Placed>> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for number in 0..at_once {
            let (mut client, next) = (self.0[number % self.0.len()].clone(), next.clone());
            let workload = workload.clone();
            callers.spawn(async move {
                let mut placed = Vec::new();
                loop {
                    let call = next.fetch_add(1, Ordering::Relaxed);
                    if call * workload.count >= tasks {
                        break;
                    }
                    run(&mut client, &workload, call, &mut placed).await?;
                }
                Ok::<_, anyhow::Error>(placed)
            });
        }
        let mut all = Vec::with_capacity(tasks);
        while let Some(placed) = callers.join_next().await {
            all.extend(placed??);
        }
        Ok(all)
    }

    /// One call after the other, `rate` calls a second whether those before are answered or not.
    pub(crate) async fn place_steadily(
        &self,
        workload: &Workload,
        tasks: usize,
        rate: usize,
    ) -> Result<Vec<Placed>> {
        let begun = Instant::now();
        let mut calls = JoinSet::new();
        for number in 0..tasks {
            let at = begun + Duration::from_secs(1) * u32::try_from(number)? / u32::try_from(rate)?;
            tokio::time::sleep_until(at.into()).await;
            let (mut client, workload) = (self.0[number % self.0.len()].clone(), workload.clone());
            calls.spawn(async move {
                let mut placed = Vec::new();
                run(&mut client, &workload, number, &mut placed).await.map(|()| placed)
            });
        }
        let mut all = Vec::with_capacity(tasks * workload.count);
        while let Some(placed) = calls.join_next().await {
            all.extend(placed??);
        }
        Ok(all)
    }
}

async fn run(
    client: &mut LighterClient<Channel>,
    workload: &Workload,
    call: usize,
    placed: &mut Vec<Placed>,
) -> Result<()> {
    let sent_ns = now_ns();
    let answer = client.run_task(workload.request(call)?).await?.into_inner();
    let all = answer.tasks.len() == workload.count;
    anyhow::ensure!(all, "not all were placed: {:?}", answer.failures.first());
    let tasks = answer.tasks.into_iter();
    placed.extend(tasks.map(|task| Placed {
        task: task.task_id,
        instance: task.container_instance_id,
        sent_ns,
        call,
    }));
    Ok(())
}

/// Tasks that the committed state has as RUNNING.
pub(crate) async fn running(client: &mut LighterClient<Channel>) -> Result<usize> {
    let answer = client.describe_clusters(v1::DescribeClustersRequest::default()).await?.into_inner();
    Ok(answer.clusters.first().context("no cluster")?.running_tasks_count as usize)
}

/// Looks every task up: all are there, all run.
pub(crate) async fn verify(client: &mut LighterClient<Channel>, placed: &[Placed]) -> Result<()> {
    let ids: Vec<String> = placed.iter().map(|placed| placed.task.clone()).collect();
    verify_ids(client, &ids).await.map(|_| ())
}

/// The same, with what they are.
pub(crate) async fn verify_ids(client: &mut LighterClient<Channel>, ids: &[String]) -> Result<Vec<v1::Task>> {
    let mut tasks = Vec::with_capacity(ids.len());
    for some in ids.chunks(100) {
        let request = v1::DescribeTasksRequest { cluster: String::new(), tasks: some.to_vec() };
        let answer = client.describe_tasks(request).await?.into_inner();
        let running = answer.tasks.iter().filter(|task| task.last_status() == v1::TaskStatus::Running);
        anyhow::ensure!(
            running.count() == some.len(),
            "of {} tasks not all run: {:?}",
            some.len(),
            answer.failures
        );
        tasks.extend(answer.tasks);
    }
    Ok(tasks)
}
