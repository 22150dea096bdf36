//! The two servers of a process, gRPC and HTTP, and their common end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tls::{Identity, Protocol};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connections::{Connections, connections_max, raise_open_files};
use crate::grpc::PREFACE_BYTES;

/// How long calls under way may take when the process ends.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// Bound and not yet served.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) grpc: TcpListener,
    pub(super) http: TcpListener,
}

impl Listeners {
    pub(super) async fn bind(grpc: SocketAddr, http: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { grpc: bind(grpc, "--listen").await?, http: bind(http, "--http-listen").await? })
    }

    pub(super) fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.grpc.local_addr()?, self.http.local_addr()?))
    }
}

pub(super) async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("{address} cannot be listened on: choose another {flag} (port 0 takes a free one)"))
}

/// Serving until stopped.
#[derive(Debug)]
pub(super) struct Servers {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Servers {
    pub(super) fn start(
        listeners: Listeners,
        routes: tonic::service::Routes,
        router: axum::Router,
        identity: Option<&Identity>,
    ) -> Self {
        let stop = watch::Sender::new(false);
        let (grpc_stop, http_stop) = (stopped(&stop), stopped(&stop));
        let max = connections_max(raise_open_files());
        let grpc = Connections::new(listeners.grpc, max, PREFACE_BYTES).secured(identity.cloned(), Protocol::Grpc);
        // of HTTP/1 the server itself knows what has to come in time
        let http = Connections::new(listeners.http, max, 0).secured(identity.cloned(), Protocol::Http);
        // outside the task group: they end by being asked, so that calls under way can end
        let grpc = tokio::spawn(async move {
            if let Err(error) = crate::grpc::serve(grpc, routes, grpc_stop).await {
                tracing::error!(%error, "the gRPC server ended");
            }
        });
        let http = tokio::spawn(crate::http::serve(http, router, http_stop));
        Self { stop, tasks: vec![grpc, http] }
    }

    /// HTTP alone, for roles that nobody calls.
    pub(super) fn http_only(listener: TcpListener, router: axum::Router, identity: Option<&Identity>) -> Self {
        let stop = watch::Sender::new(false);
        let connections = Connections::new(listener, connections_max(raise_open_files()), 0);
        let connections = connections.secured(identity.cloned(), Protocol::Http);
        let http = tokio::spawn(crate::http::serve(connections, router, stopped(&stop)));
        Self { stop, tasks: vec![http] }
    }

    /// Takes nothing new.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for what is under way, for a while.
    pub(super) async fn ended(self) {
        for mut task in self.tasks {
            if timeout(DRAIN_PATIENCE, &mut task).await.is_err() {
                tracing::warn!("calls under way are cut off");
                task.abort();
            }
        }
    }
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + use<> {
    let mut stop = stop.subscribe();
    async move {
        // a sender that is gone has stopped too
        drop(stop.wait_for(|stop| *stop).await);
    }
}
