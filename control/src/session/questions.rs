//! Questions for a task's journal, between who asks and the node that wrote it, met by an id.
//! In: answers of nodes. Out: the same, to who asked. Owns: which questions are open.
//! Never: takes an answer from a node that was not asked; keeps a question whose asker has gone.

use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::task_event::TaskEvent;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What a node is asked.
#[derive(Debug, Clone)]
pub struct Question {
    pub id: String,
    pub task: TaskId,
}

struct Open {
    instance: ContainerInstanceId,
    answer: oneshot::Sender<Vec<TaskEvent>>,
}

/// The questions that wait for their node.
#[derive(Default, Clone)]
pub struct Questions(Arc<Mutex<BTreeMap<String, Open>>>);

/// The asker's end; dropping it closes the question.
pub struct Asked {
    id: String,
    answer: oneshot::Receiver<Vec<TaskEvent>>,
    questions: Questions,
}

impl Asked {
    /// The answer; `None` when the node's session ended without one.
    pub async fn answer(&mut self) -> Option<Vec<TaskEvent>> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.questions.open().remove(&self.id);
    }
}

impl Questions {
    // Held for one map operation, never over an await.
    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a question that the instance is about to be asked.
    pub fn ask(&self, id: &str, instance: &ContainerInstanceId) -> Asked {
        let (sender, answer) = oneshot::channel();
        self.open().insert(id.to_owned(), Open { instance: instance.clone(), answer: sender });
        Asked { id: id.to_owned(), answer, questions: self.clone() }
    }

    /// What a node said; not asked, or asked of another: dropped.
    pub fn answered(&self, id: &str, by: &ContainerInstanceId, events: Vec<TaskEvent>) {
        let mut open = self.open();
        if open.get(id).is_some_and(|question| question.instance == *by)
            && let Some(question) = open.remove(id)
        {
            // Who asked may have gone meanwhile.
            let _ = question.answer.send(events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_node_that_was_asked_answers() {
        let questions = Questions::default();
        let (own, other) = ("a".repeat(32).parse().unwrap(), "b".repeat(32).parse().unwrap());
        let mut asked = questions.ask("q", &own);
        questions.answered("q", &other, Vec::new());
        questions.answered("unknown", &own, Vec::new());
        assert_eq!(questions.open().len(), 1);
        questions.answered("q", &own, Vec::new());
        assert_eq!(asked.answer().await, Some(Vec::new()));
        drop(questions.ask("left", &own));
        assert!(questions.open().is_empty());
    }
}
