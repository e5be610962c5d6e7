//! Who asks for tasks: many calls at a time over a few connections with an administrator's certificate.
//! In: how many. Out: the ids, and when each call was sent. Never: goes on when a task was not placed.

use super::clock::now_ns;
use super::plane::Plane;
use anyhow::{Context, Result};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

pub(crate) struct Callers(Vec<LighterClient<Channel>>);

/// A task that a call has answered with, and when the call was sent.
pub(crate) type Placed = (String, u64);

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
        family: &str,
        tasks: usize,
        count: usize,
        at_once: usize,
    ) -> Result<Vec<Placed>> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for number in 0..at_once {
            let (mut client, next) = (self.0[number % self.0.len()].clone(), next.clone());
            let family = family.to_owned();
            callers.spawn(async move {
                let mut placed = Vec::new();
                while next.fetch_add(count, Ordering::Relaxed) < tasks {
                    run(&mut client, &family, count, &mut placed).await?;
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

    /// One task a call, `rate` calls a second whether those before are answered or not.
    pub(crate) async fn place_steadily(
        &self,
        family: &str,
        tasks: usize,
        rate: usize,
    ) -> Result<Vec<Placed>> {
        let begun = Instant::now();
        let mut calls = JoinSet::new();
        for number in 0..tasks {
            let at = begun + Duration::from_secs(1) * u32::try_from(number)? / u32::try_from(rate)?;
            tokio::time::sleep_until(at.into()).await;
            let (mut client, family) = (self.0[number % self.0.len()].clone(), family.to_owned());
            calls.spawn(async move {
                let mut placed = Vec::new();
                run(&mut client, &family, 1, &mut placed).await.map(|()| placed)
            });
        }
        let mut all = Vec::with_capacity(tasks);
        while let Some(placed) = calls.join_next().await {
            all.extend(placed??);
        }
        Ok(all)
    }
}

async fn run(
    client: &mut LighterClient<Channel>,
    family: &str,
    count: usize,
    placed: &mut Vec<Placed>,
) -> Result<()> {
    let sent_ns = now_ns();
    let request = v1::RunTaskRequest {
        task_definition: family.to_owned(),
        count: u32::try_from(count)?,
        ..Default::default()
    };
    let answer = client.run_task(request).await?.into_inner();
    anyhow::ensure!(answer.tasks.len() == count, "not all were placed: {:?}", answer.failures.first());
    placed.extend(answer.tasks.into_iter().map(|task| (task.task_id, sent_ns)));
    Ok(())
}

/// Tasks that the committed state has as RUNNING.
pub(crate) async fn running(client: &mut LighterClient<Channel>) -> Result<usize> {
    let answer = client.describe_clusters(v1::DescribeClustersRequest::default()).await?.into_inner();
    Ok(answer.clusters.first().context("no cluster")?.running_tasks_count as usize)
}

/// Looks every task up: all are there, all run.
pub(crate) async fn verify(client: &mut LighterClient<Channel>, placed: &[Placed]) -> Result<()> {
    for some in placed.chunks(100) {
        let tasks = some.iter().map(|(task, _)| task.clone()).collect();
        let request = v1::DescribeTasksRequest { cluster: String::new(), tasks };
        let answer = client.describe_tasks(request).await?.into_inner();
        let running = answer.tasks.iter().filter(|task| task.last_status() == v1::TaskStatus::Running);
        anyhow::ensure!(
            running.count() == some.len(),
            "of {} tasks not all run: {:?}",
            some.len(),
            answer.failures
        );
    }
    Ok(())
}
