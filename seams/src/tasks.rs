//! Tasks: every spawn of the system goes through [`spawn`], and joins the group of the task that spawned it.
//!
//! A group is one node's tasks. The simulator crashes a node by [`TaskGroup::abort_all`]; production stops
//! one the same way, after asking politely. [`TaskGroup::stand_still`] is the simulator's alone: what SIGSTOP does to a
//! process. A task outside any group is an ordinary tokio task. Panics are
//! not handled here: a panic is a bug, and the binary's panic hook ends the process.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::task::{AbortHandle, JoinHandle};

tokio::task_local! {
    static GROUP: TaskGroup;
}

/// A set of tasks that end together. Clones are the same group.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether no task goes on; read at every turn of every task.
    still: AtomicBool,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    aborted: bool,
    spawned: u64,
    /// In the order of spawning; a finished task has removed itself. `None` while the task is being spawned.
    running: BTreeMap<u64, Option<AbortHandle>>,
    /// Tasks whose turn came while the group stood still, in the order of spawning.
    held_up: BTreeMap<u64, Waker>,
}

/// Removes a task from its group when the task ends, however it ends.
struct Membership {
    group: TaskGroup,
    number: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.group.members();
        members.running.remove(&self.number);
        members.held_up.remove(&self.number);
    }
}

impl Membership {
    /// Whether the task has to wait until its group goes on; then it is woken.
    fn is_held_up(&self, waker: &Waker) -> bool {
        // the simulator's one thread is the only one that ever sets it
        let still = self.group.shared.still.load(Ordering::Relaxed);
        if still {
            self.group.members().held_up.insert(self.number, waker.clone());
        }
        still
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
            let membership = membership;
            let mut future = pin!(future);
            poll_fn(|turn| match membership.is_held_up(turn.waker()) {
                true => Poll::Pending,
                false => future.as_mut().poll(turn),
            })
            .await
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

    /// From now on no task of the group goes on, whatever it waits for, until [`Self::go_on`]: for a simulator with one
    /// thread, which is not within a task of the group. False where it stood still already.
    pub fn stand_still(&self) -> bool {
        !self.shared.still.swap(true, Ordering::Relaxed)
    }

    /// The group's tasks go on, with everything late, in the order in which they were spawned.
    pub fn go_on(&self) {
        self.shared.still.store(false, Ordering::Relaxed);
        let held_up = std::mem::take(&mut self.members().held_up);
        held_up.into_values().for_each(Waker::wake);
    }

    /// How many tasks of the group have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.members().running.len()
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.shared.members.lock().unwrap_or_else(PoisonError::into_inner)
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

    use std::time::Duration;

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

    #[tokio::test(start_paused = true)]
    async fn a_group_that_stands_still_does_nothing_until_it_goes_on_and_then_everything_late() {
        let group = TaskGroup::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let begun = tokio::time::Instant::now();
        let waiting = |millis: u64| {
            let told = Arc::clone(&told);
            async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                told.lock().unwrap().push((millis, begun.elapsed().as_millis()));
            }
        };
        let tasks = [30, 10].map(|millis| group.spawn(waiting(millis)));
        let other = TaskGroup::new().spawn(waiting(20));
        // whoever has not begun yet does not wait yet
        tokio::task::yield_now().await;
        assert!(group.stand_still() && !group.stand_still());
        let born_still = group.spawn(waiting(0));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(*told.lock().unwrap(), [(20, 20)]);
        group.go_on();
        for task in tasks.into_iter().chain([other, born_still]) {
            task.await.unwrap();
        }
        // the last one had not begun to wait
        assert_eq!(told.lock().unwrap()[..3], [(20, 20), (30, 500), (10, 500)]);
        group.stand_still();
        let ended = group.spawn(waiting(0));
        group.abort_all();
        assert!(ended.await.unwrap_err().is_cancelled(), "what stands still can be ended");
        assert_eq!(group.running(), 0);
    }

    #[tokio::test]
    async fn a_task_outside_any_group_is_ordinary() {
        assert!(TaskGroup::current().is_none());
        assert_eq!(spawn(async { 5 }).await.unwrap(), 5);
    }
}
