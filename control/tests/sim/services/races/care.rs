//! Races of health checks and task protection, brought about on purpose.
//! In: a world with checks, a service that nobody else changes. Out: calls. Owns: nothing.
//! Never: takes it for granted that a call was heard: it looks at what is stored.

use super::{begin, bounds, set_draining, until, update, wait};
use crate::model::goes_on;
use crate::services::checks;
use crate::world::World;
use lighter_control::core::record::TaskRecord;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::status::{DesiredStatus, TaskStatus};
use std::rc::Rc;

/// Tasks are protected, then something is asked for that they stand in the way of.
pub(super) async fn protected(world: &Rc<World>, name: &str) -> Option<()> {
    let wanted = begin(world, name).await?.desired;
    if wanted < 2 {
        let count = world.luck.borrow_mut().between(2, 5);
        update(world, name, &format!(r#""desiredCount":{count},{}"#, bounds(50, 200, Some(true)))).await?;
    }
    let tasks = wait(world, || running(world, name)).await?;
    let (minutes, what) = {
        let mut luck = world.luck.borrow_mut();
        (luck.between(1, 2), luck.below(3))
    };
    let ids: Vec<TaskId> = tasks.iter().map(|(id, _)| id.clone()).collect();
    while !world.over.get() && !checks::protect(world, &ids, minutes).await {
        world.sleep(200).await;
    }
    match what {
        0 => update(world, name, r#""desiredCount":1"#).await?,
        1 => {
            let next = world.luck.borrow_mut().pick(&["checked1", "good1"]).unwrap();
            update(world, name, &format!(r#""taskDefinition":"{next}","forceNewDeployment":true"#)).await?;
        }
        _ => set_draining(world, &tasks[0].1, true, false).await,
    }
    let (pause, then) = {
        let mut luck = world.luck.borrow_mut();
        (luck.between(1_000, 50_000), luck.below(4))
    };
    world.sleep(pause).await;
    match then {
        0 => drop(checks::protect(world, &ids, 0).await),
        1 => drop(checks::protect(world, &ids, minutes).await),
        // They are left to the end of their time.
        _ => world.sleep(60_000).await,
    }
    if what == 2 {
        set_draining(world, &tasks[0].1, false, false).await;
    }
    Some(())
}

/// A revision whose tasks run, and are never healthy.
pub(super) async fn sick(world: &Rc<World>, name: &str) -> Option<()> {
    begin(world, name).await?;
    let members = {
        let mut luck = world.luck.borrow_mut();
        let (minimum, maximum) = luck.pick(&[(0, 100), (50, 100), (100, 200)]).unwrap();
        let grace = checks::grace(&mut luck, true);
        let (count, rollback) = (luck.between(1, 4), luck.percent(70));
        let bounds = bounds(minimum, maximum, Some(rollback));
        format!(r#""taskDefinition":"sick","desiredCount":{count},{bounds}{grace}"#)
    };
    update(world, name, &members).await?;
    until(world, name, |s| s.primary().is_some_and(|d| d.definition.family.as_ref() == "sick")).await?;
    until(world, name, |s| s.primary().is_none_or(|d| !goes_on(d) || d.rollback_of.is_some())).await?;
    Some(())
}

/// Its tasks that RUN, with their instances, if there are two.
fn running(world: &World, name: &str) -> Option<Vec<(TaskId, ContainerInstanceId)>> {
    let model = world.model.borrow();
    let own = |task: &&TaskRecord| task.service.as_ref().is_some_and(|of| of.name.as_ref() == name);
    let runs =
        |task: &&TaskRecord| task.desired == DesiredStatus::Running && task.last == TaskStatus::Running;
    let tasks: Vec<_> = model.tasks.values().filter(own).filter(runs).collect();
    let with_place = |task: &TaskRecord| (task.id.clone(), task.instance.clone());
    (tasks.len() >= 2).then(|| tasks.into_iter().map(with_place).collect())
}
