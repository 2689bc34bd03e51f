//! What is called: a hearth's pool, or a floor.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use hearth_benches::load::connect;
use hearth_benches::load::floor::FloorTarget;
use hearth_benches::load::hearth::{Depth, HearthTarget, Sizes};
use hearth_benches::load::stamp::Stamp;
use hearth_benches::load::versus::floor_of;
use hearth_proto::Credentials;
use tokio_util::sync::CancellationToken;

use crate::arguments::Load;

/// How long a pool may take to fill before the first call.
const FILLING: Duration = Duration::from_secs(60);

/// Where it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Where {
    /// The hearth: host:port, a URI, or unix:/path.
    #[arg(long, env = "HEARTH_ADDRESS", value_name = "ADDRESS", required_unless_present = "floor")]
    address: Option<String>,
    /// The pool to acquire from.
    #[arg(long, value_name = "POOL", required_unless_present = "floor")]
    pool: Option<String>,
    /// Load this floor, and not the hearth; that is asked for the sizes of its messages.
    #[arg(long, value_name = "ADDRESS")]
    floor: Option<String>,
    /// With --floor: the encoded size of the request, where there is no hearth to ask.
    #[arg(long, value_name = "BYTES", requires = "floor", requires = "response_bytes")]
    request_bytes: Option<usize>,
    /// With --floor: the same, of the answer.
    #[arg(long, value_name = "BYTES", requires = "floor", requires = "request_bytes")]
    response_bytes: Option<usize>,
}

/// It, connected.
pub(crate) enum Found {
    /// A hearth, and how full its pool was.
    Hearth(Box<HearthTarget>, Depth),
    /// A floor, and the sizes of its messages.
    Floor(FloorTarget, Sizes),
}

impl Where {
    /// Connects, and has the pool fill; answers on what it runs, too.
    ///
    /// # Errors
    /// When there is nothing to call, or the arguments do not fit.
    pub(crate) async fn find(&self, load: &Load) -> Result<(Found, Stamp), Box<dyn Error>> {
        match (&self.floor, &self.address, &self.pool) {
            (Some(floor), _, _) => {
                let sizes = self.sizes(load).await?;
                let caller = Credentials { token: None, ..load.credentials()? };
                let transports = connect(floor, load.connections(), &caller).await?;
                let target = floor_of(sizes, transports, load.deadline)?;
                Ok((Found::Floor(target, sizes), Stamp::take(None)))
            }
            (None, Some(address), Some(pool)) => {
                let caller = load.credentials()?;
                let transports = connect(address, load.connections(), &caller).await?;
                let target = HearthTarget::new(transports, &load.wish(pool));
                // A tenant may not ask what the node is.
                let stamp = Stamp::take(target.node().await.ok().as_ref());
                let depth = target.fill(FILLING).await?;
                Ok((Found::Hearth(Box::new(target), depth), stamp))
            }
            (None, _, _) => Err("--address and --pool, or --floor".into()),
        }
    }

    /// As reports call it.
    pub(crate) fn name(&self) -> String {
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        match &self.floor {
            Some(floor) => format!("floor {floor}"),
            None => format!("{} {}", text(&self.address), text(&self.pool)),
        }
    }

    /// How large the messages of the floor shall be.
    async fn sizes(&self, load: &Load) -> Result<Sizes, Box<dyn Error>> {
        if let (Some(request_bytes), Some(response_bytes)) =
            (self.request_bytes, self.response_bytes)
        {
            return Ok(Sizes { request_bytes, response_bytes });
        }
        let (Some(address), Some(pool)) = (&self.address, &self.pool) else {
            return Err("--floor takes --request-bytes and --response-bytes, or --address and \
                        --pool to measure them"
                .into());
        };
        let transports = connect(address, 1, &load.credentials()?).await?;
        let target = HearthTarget::new(transports, &load.wish(pool));
        Ok(target.sizes().await?)
    }
}

/// Runs to the end; Ctrl-C cancels `stop`, and what is under way is then waited for.
pub(crate) async fn until_stopped<R>(
    stop: &CancellationToken,
    running: impl Future<Output = R>,
) -> R {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        done = running => done,
        never = interrupted => match never {},
    }
}
