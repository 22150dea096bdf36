//! Tasks: every spawn of the system goes through [`spawn`], and joins the group of the task that spawned it.
//!
//! A group is one node's tasks. The simulator crashes a node by [`TaskGroup::abort_all`]; production stops
//! one the same way, after asking politely. A task outside any group is an ordinary tokio task. Panics are
//! not handled here: a panic is a bug, and the binary's panic hook ends the process.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::{AbortHandle, JoinHandle};

tokio::task_local! {
    static GROUP: TaskGroup;
}

/// A set of tasks that end together. Clones are the same group.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    members: Arc<Mutex<Members>>,
}

#[derive(Debug, Default)]
struct Members {
    aborted: bool,
    spawned: u64,
    /// In the order of spawning; a finished task has removed itself. `None` while the task is being spawned.
    running: BTreeMap<u64, Option<AbortHandle>>,
}

/// Removes a task from its group when the task ends, however it ends.
struct Membership {
    group: TaskGroup,
    number: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.group.members().running.remove(&self.number);
    }
}

impl TaskGroup {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        TaskGroup::default()
    }

    /// The group of the running task, if it has one.
    #[must_use]
    pub fn current() -> Option<Self> {
        GROUP.try_with(TaskGroup::clone).ok()
    }

    /// Runs the future inside this group: what it spawns belongs to the group. The future itself is its
    /// caller's and is not aborted with the group.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        GROUP.scope(self.clone(), future)
    }

    /// Spawns a task into this group, whatever group the caller is in.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let number = self.reserve();
        let membership = Membership { group: self.clone(), number };
        // not under the lock: a runtime that shuts down drops the future, and its membership, right here
        let task = tokio::spawn(self.scope(async move {
            let _membership = membership;
            future.await
        }));
        let mut members = self.members();
        if members.aborted {
            task.abort();
        } else if let Some(place) = members.running.get_mut(&number) {
            *place = Some(task.abort_handle());
        }
        drop(members);
        task
    }

    fn reserve(&self) -> u64 {
        let mut members = self.members();
        members.spawned += 1;
        let number = members.spawned;
        members.running.insert(number, None);
        number
    }

    /// Aborts every task of the group, in the order they were spawned, and whatever is spawned into it from
    /// now on. A task stops at its next await.
    pub fn abort_all(&self) {
        let running = {
            let mut members = self.members();
            members.aborted = true;
            std::mem::take(&mut members.running)
        };
        running.into_values().flatten().for_each(|task| task.abort());
    }

    /// How many tasks of the group have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.members().running.len()
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spawns a task into the caller's group.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match TaskGroup::current() {
        Some(group) => group.spawn(future),
        None => tokio::spawn(future),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn aborting_a_group_ends_children_of_children() {
        let group = TaskGroup::new();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let parent = group.spawn(async move {
            let child = spawn(std::future::pending::<()>());
            sender.send(child).unwrap();
            std::future::pending::<()>().await;
        });
        let child = receiver.await.unwrap();
        assert_eq!(group.running(), 2);
        group.abort_all();
        assert!(parent.await.unwrap_err().is_cancelled());
        assert!(child.await.unwrap_err().is_cancelled());
        assert!(group.spawn(async {}).await.unwrap_err().is_cancelled());
        assert_eq!(group.running(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn finished_tasks_leave_nothing_behind() {
        let group = TaskGroup::new();
        for _ in 0..1000 {
            group.spawn(async {}).await.unwrap();
        }
        assert_eq!(group.running(), 0);
    }

    #[tokio::test]
    async fn a_task_outside_any_group_is_ordinary() {
        assert!(TaskGroup::current().is_none());
        assert_eq!(spawn(async { 5 }).await.unwrap(), 5);
    }
}
