//! `seriatim validator`: checks bundles for nodes. Holds no state but its key.

use std::sync::Arc;

use ledger::check::LedgerIdentity;
use ledger::{ClusterId, Limits};
use seams::{SystemClock, TaskGroup, ThreadPool};
use tls::Role;
use validator::{Announcer, ServiceOptions, ValidatorService};

use super::secured::identity;
use super::servers::{Listeners, Servers};
use super::{Ready, advertised, own_key};
use crate::config::ValidatorConfig;
use crate::network::{Channels, GrpcTransport};
use crate::{grpc, http};

/// A validator that runs. Stop it with [`RunningValidator::stop`].
#[derive(Debug)]
pub struct RunningValidator {
    service: ValidatorService,
    ready: Ready,
    servers: Servers,
    tasks: TaskGroup,
}

impl RunningValidator {
    /// Starts a validator, which serves when this returns.
    ///
    /// # Errors
    /// Where the configuration does not allow it; the message says what to do.
    pub async fn start(config: ValidatorConfig) -> anyhow::Result<Self> {
        let key = own_key(&config.key_file)?;
        let tasks = TaskGroup::new();
        let tls = tasks.scope(async { identity(config.tls.as_ref(), Role::Validator, config.listen) }).await?;
        let listeners = Listeners::bind(config.listen, config.http_listen).await?;
        let (grpc_address, http_address) = listeners.addresses()?;
        let address = advertised(config.advertise.as_deref(), grpc_address)?;
        let identity = LedgerIdentity { cluster: ClusterId::of_name(&config.cluster), group: 0 };
        let mut options =
            ServiceOptions { wait_per_transaction: config.wait_per_transaction, ..ServiceOptions::default() };
        if let Some(count) = config.concurrent_bundles_max {
            options.concurrent_max = count;
        }
        let compute = Arc::new(ThreadPool::new(config.compute_threads)?);
        let service = ValidatorService::new(options, identity, Limits::V1, key, compute);
        let routes = grpc::validator_routes(Arc::new(service.clone()));
        let router = http::validator_router(&service, tls.as_ref());
        let servers = Servers::start(listeners, routes, router, tls.as_ref());
        let announcer = Announcer {
            identity,
            key,
            address: address.clone(),
            nodes: config.nodes.as_slice().to_vec(),
            transport: Arc::new(GrpcTransport::new(Channels::secured(tls))),
            clock: Arc::new(SystemClock),
        };
        drop(tasks.spawn(announcer.run()));
        let ready = Ready {
            role: "validator".to_owned(),
            node: None,
            cluster: config.cluster,
            grpc: grpc_address,
            http: http_address,
            advertise: address.as_str().to_owned(),
            key: key.party().to_string(),
            pid: std::process::id(),
        };
        Ok(Self { service, ready, servers, tasks })
    }

    /// Where it serves, and under which key.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What it does.
    #[must_use]
    pub const fn service(&self) -> &ValidatorService {
        &self.service
    }

    /// Stops: announces no more, and ends calls under way.
    pub async fn stop(self) {
        self.tasks.abort_all();
        self.servers.stop();
        self.servers.ended().await;
    }
}
