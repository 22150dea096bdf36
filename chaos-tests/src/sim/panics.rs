//! Panics of simulated tasks. The runtime keeps a task's panic to itself; here none goes unnoticed.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// Panics on this thread since the simulation began; `None` outside simulations.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Begins to collect the panics of this thread.
pub(crate) fn collect() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let collected =
                PANICS.with_borrow_mut(|panics| panics.as_mut().map(|panics| panics.push(panic.to_string())).is_some());
            if !collected {
                before(panic);
            }
        }));
    });
    PANICS.set(Some(Vec::new()));
}

/// What was collected; ends the collecting.
pub(crate) fn take() -> Vec<String> {
    PANICS.take().unwrap_or_default()
}
