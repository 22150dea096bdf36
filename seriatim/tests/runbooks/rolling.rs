//! The first three nodes of a page, stopped and started one after another by its lines.

use std::collections::BTreeMap;

use crate::stage::{Running, Stage};

/// What starts node 1; the others differ in their numbers and directories.
const OF_A: &str = "seriatim node --initialize --cluster venue --id 1 --members 1=a:7400,2=b:7400,3=c:7400 --data-dir \
                    /var/lib/seriatim --listen 0.0.0.0:7400 --http-listen 0.0.0.0:7480";
const STATUS: &str = "seriatim admin status --endpoint a:7400,b:7400,c:7400";

/// Those that run, by their machines.
pub(crate) struct Rolling(BTreeMap<char, Running>);

impl Rolling {
    /// Starts all of them, and waits until one leads.
    pub(crate) async fn begin(stage: &mut Stage) -> Self {
        let mut rolling = Self(BTreeMap::new());
        for letter in "abc".chars() {
            rolling.run(stage, letter);
        }
        stage.led("abc").await;
        rolling
    }

    fn run(&mut self, stage: &mut Stage, letter: char) {
        let number = "abc".find(letter).unwrap() + 1;
        let started = if letter == 'a' { stage.start('a', OF_A) } else { stage.start_first(number, &[]) };
        self.0.insert(letter, started);
    }

    /// Stops a node in order, once all are ready, as the page demands.
    pub(crate) async fn stop(&mut self, stage: &mut Stage, letter: char) {
        let shown = stage.done(STATUS).await;
        assert_eq!(shown.lines().filter(|line| line.contains("ready")).count(), 3, "{shown}");
        self.0.remove(&letter).unwrap().stop().await;
    }

    /// Kills a node.
    pub(crate) fn kill(&mut self, letter: char) {
        drop(self.0.remove(&letter).unwrap());
    }

    /// Has it stand still.
    pub(crate) fn pause(&self, letter: char) {
        self.0[&letter].pause();
    }

    pub(crate) fn resume(&self, letter: char) {
        self.0[&letter].resume();
    }

    /// Starts it again, and waits until it is ready.
    pub(crate) async fn start(&mut self, stage: &mut Stage, letter: char) {
        self.run(stage, letter);
        let said = stage.done_on(letter, "seriatim health ready --http 127.0.0.1:7480 --within 2min").await;
        assert_eq!(said, "ready\n");
    }
}
