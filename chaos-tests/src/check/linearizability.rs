//! Whether any order explains a history: the search of Wing and Gong, with Lowe's memory of what was tried.
//!
//! The search knows nothing of the order that the nodes tell; so it finds what a wrong order would hide. Its time may
//! explode, so it gives up after so many steps, and histories are cut into parts that do not influence one another
//! ([`super::registers`]).

use std::collections::BTreeSet;
use std::time::Duration;

/// A call on an object.
#[derive(Debug, Clone)]
pub struct Interval<C> {
    /// When it began.
    pub invoked: Duration,
    /// When it was answered; `None` where it may take effect at any time after it began, or never.
    pub answered: Option<Duration>,
    /// What was asked and answered.
    pub call: C,
}

/// What a sequential object does.
pub trait Object {
    /// Its state.
    type State: Clone + Ord;
    /// A call with its answer.
    type Call;

    /// The state at the beginning.
    fn initial(&self) -> Self::State;

    /// The state after the call; `None` where the call cannot be answered so in this state.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// This order of calls, by their positions in the history, explains every answer.
    Explained(Vec<usize>),
    /// No order does. The longest beginning of one that could be explained, and the calls of which none can follow.
    Impossible {
        /// The longest beginning.
        longest: Vec<usize>,
        /// Calls that were tried after it.
        stuck: Vec<usize>,
    },
    /// The search was given up.
    Undecided,
}

/// Which calls of a history have taken effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Taken(Vec<u64>);

impl Taken {
    fn none_of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn has(&self, call: usize) -> bool {
        self.0.get(call / 64).is_some_and(|word| word & (1 << (call % 64)) != 0)
    }

    fn flip(&mut self, call: usize) {
        if let Some(word) = self.0.get_mut(call / 64) {
            *word ^= 1 << (call % 64);
        }
    }
}

/// A call that was taken, and what it is to be undone with.
struct Step<S> {
    call: usize,
    before: S,
}

/// Searches for an order of the calls that explains all answers and respects real time.
pub fn search<O: Object>(object: &O, history: &[Interval<O::Call>], steps_max: u64) -> Search {
    let mut by_time: Vec<usize> = (0..history.len()).collect();
    by_time.sort_by_key(|call| history.get(*call).map(|interval| interval.invoked));
    let wanted = history.iter().filter(|interval| interval.answered.is_some()).count();
    let mut taken = Taken::none_of(history.len());
    let mut state = object.initial();
    let mut path: Vec<Step<O::State>> = Vec::new();
    let mut answered = 0;
    let mut tried: BTreeSet<(Taken, O::State)> = BTreeSet::new();
    let mut longest: (Vec<usize>, Vec<usize>) = Default::default();
    let mut from = 0;
    let mut steps = 0_u64;
    while answered < wanted {
        steps += 1;
        if steps > steps_max {
            return Search::Undecided;
        }
        let open = candidates(history, &by_time, &taken);
        let mut next = None;
        for (position, call) in open.iter().enumerate().skip(from) {
            let Some(after) = history.get(*call).and_then(|interval| object.step(&state, &interval.call)) else {
                continue;
            };
            taken.flip(*call);
            if tried.insert((taken.clone(), after.clone())) {
                next = Some((position, *call, after));
                break;
            }
            taken.flip(*call);
        }
        if let Some((_, call, after)) = next {
            answered += usize::from(history.get(call).is_some_and(|interval| interval.answered.is_some()));
            path.push(Step { call, before: std::mem::replace(&mut state, after) });
            from = 0;
            continue;
        }
        if path.len() >= longest.0.len() {
            longest = (path.iter().map(|step| step.call).collect(), open);
        }
        let Some(Step { call, before }) = path.pop() else {
            return Search::Impossible { longest: longest.0, stuck: longest.1 };
        };
        state = before;
        taken.flip(call);
        answered -= usize::from(history.get(call).is_some_and(|interval| interval.answered.is_some()));
        // go on behind the call that led nowhere
        from = candidates(history, &by_time, &taken).iter().position(|other| *other == call).unwrap_or(0) + 1;
    }
    Search::Explained(path.into_iter().map(|step| step.call).collect())
}

/// Calls that may come next: those that began before the first answer of any that is still to come.
fn candidates<C>(history: &[Interval<C>], by_time: &[usize], taken: &Taken) -> Vec<usize> {
    let mut first_answer: Option<Duration> = None;
    let mut open = Vec::new();
    for call in by_time.iter().copied().filter(|call| !taken.has(*call)) {
        let Some(interval) = history.get(call) else { continue };
        if first_answer.is_some_and(|first| interval.invoked > first) {
            break;
        }
        if let Some(answered) = interval.answered {
            first_answer = Some(first_answer.map_or(answered, |first| first.min(answered)));
        }
        open.push(call);
    }
    // what began before the first answer, which may have been found later than it
    open.retain(|call| {
        let invoked = history.get(*call).map(|interval| interval.invoked);
        first_answer.is_none_or(|first| invoked.is_some_and(|invoked| invoked <= first))
    });
    open
}
