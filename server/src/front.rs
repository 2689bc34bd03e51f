//! The services behind their layers and without a port: for programs that have a server in them.
//!
//! A request that is called here goes the way that one from a socket goes, and whoever calls may
//! say by an extension of the request who it is; see [`crate::auth`]. What a port adds is not here:
//! health, reflection, and the bounds of a connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hearth_pool::manager::Manager;
use hearth_pool::tasks::TaskGroup;
use hearth_pool::tenants::Tenants;
use hearth_providers::env::{Env, SystemEnv};
use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer as _, Service};

use crate::auth::guard::Guard;
use crate::config::{Config, Grpc, Streams};
use crate::grpc::Services;
use crate::hearth::StartError;
use crate::layers::{WatchLayer, Watched};
use crate::listen::DESCRIPTOR_SETS;
use crate::telemetry::Levels;

/// What goes around the services; made once, it does for every [`Front`] of this process.
#[derive(Clone, Debug)]
pub struct Layers(WatchLayer);

impl Layers {
    /// The layers of a server. Takes milliseconds.
    ///
    /// # Errors
    /// `Internal` when our own descriptors cannot be read.
    pub fn new() -> Result<Self, StartError> {
        let (env, settings) = (Arc::new(SystemEnv), Config::default().grpc);
        let nobody = Guard::new(env, None, &Tenants::default(), &settings);
        let made = WatchLayer::new(&DESCRIPTOR_SETS, Arc::default(), nobody);
        made.map(Self).map_err(|error| StartError::Internal(error.into()))
    }
}

/// The services in front of one manager. Clones are the same service.
#[derive(Clone, Debug)]
pub struct Front {
    watched: Watched<Routes>,
    is_open: Arc<AtomicBool>,
}

impl Front {
    /// The services in front of `manager`; what their calls begin belongs to `tasks`. Answers
    /// `NODE_STARTING` until it is opened.
    pub fn new(
        layers: &Layers,
        manager: Arc<Manager>,
        tasks: &TaskGroup,
        env: Arc<dyn Env>,
        settings: &Grpc,
    ) -> Self {
        let ending = tasks.stopping().child_token();
        let bounds = (settings.max_message_bytes, Streams::default());
        let levels = Levels::detached();
        let tenants = Tenants::new(manager.limits().tenants.clone());
        let guard = Guard::new(Arc::clone(&env), None, &tenants, settings);
        let services = Services::new(manager, tasks.clone(), env, levels, bounds, ending);
        let is_open = Arc::new(AtomicBool::new(false));
        let layer = layers.0.opened_by(Arc::clone(&is_open), guard);
        Self { watched: layer.layer(services.routes().prepare()), is_open }
    }

    /// Recovery is over: from here on calls are let in.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }
}

impl Service<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.watched.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let called = self.watched.call(request);
        Box::pin(async move { Ok(called.await?.map(Body::new)) })
    }
}
