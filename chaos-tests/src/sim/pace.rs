//! Validators that take their time.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use seams::{BoxFuture, CallError, Duplex, Method, Service};
use tokio::time::sleep;

use crate::dice::lock;
use crate::sim::world::World;

/// How long an answer takes. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    world: World,
    delay: Arc<Mutex<RangeInclusive<Duration>>>,
}

impl Pace {
    /// At once.
    pub(super) fn new(world: &World) -> Self {
        Self { world: world.clone(), delay: Arc::new(Mutex::new(Duration::ZERO..=Duration::ZERO)) }
    }

    /// False where it was like that.
    pub(super) fn set(&self, delay: RangeInclusive<Duration>) -> bool {
        std::mem::replace(&mut *lock(&self.delay), delay.clone()) != delay
    }

    async fn keep(&self) {
        let delay = lock(&self.delay).clone();
        if !delay.end().is_zero() {
            sleep(self.world.pause(&delay)).await;
        }
    }
}

/// A service that answers at a pace.
#[derive(Clone)]
pub(super) struct PacedService {
    pub(super) service: Arc<dyn Service>,
    pub(super) pace: Pace,
}

impl Service for PacedService {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let paced = self.clone();
        Box::pin(async move {
            paced.pace.keep().await;
            paced.service.handle(method, body).await
        })
    }

    fn accept(&self, method: Method, duplex: Duplex) {
        self.service.accept(method, duplex);
    }
}
