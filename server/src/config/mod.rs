//! The configuration: plain data, in layers, and checked as a whole before a port is bound.
//!
//! Built-in defaults < file < environment (`HEARTH_A__B`) < flags. What is wrong is named by
//! its key and the layer it came from. `docs/configuration.md` has every key; a test compares.

mod check;
pub mod dirs;
pub mod firecracker;
mod kinds;
mod layers;
mod limits;
mod providers;
mod security;
mod telemetry;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hearth_pool::bucket::Rate;
use hearth_pool::pool::{Overflow, Sizing, WarmState};
use serde::{Deserialize, Serialize};

pub(crate) use kinds::DefaultGuest;
pub use kinds::ProviderKind;
pub use layers::{ConfigError, Loaded, load};
pub(crate) use layers::{Flags, load_text};
pub use limits::{Limits, Streams};
pub use providers::{Accel, ProviderConfig};
pub use security::{Audit, Auth, Tls};
pub use telemetry::Telemetry;

use crate::telemetry::LogFormat;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where gRPC is served; port 0 picks a free one.
    pub listen: SocketAddr,
    /// A Unix socket where gRPC is served, too; unset: none.
    pub socket: Option<PathBuf>,
    /// Where metrics and probes are served; port 0 picks a free one.
    pub admin: SocketAddr,
    /// What survives a restart; unset: [`dirs::default_state`].
    pub state: Option<PathBuf>,
    /// Names, best on tmpfs; unset: `/run/hearth/<state uuid>`, or else the state directory.
    pub runtime: Option<PathBuf>,
    /// The guest that the default template boots; unset: looked for, see [`dirs::find_guest`].
    pub guest: Option<PathBuf>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged, where `RUST_LOG` does not say.
    pub log_level: String,
    /// The provider of whoever does not name one; unset: the only one, or the first by name.
    pub default_provider: Option<String>,
    /// How often certificates, keys and identities are looked at for changes.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
    /// How connections are encrypted.
    pub tls: Tls,
    /// Who callers are.
    pub auth: Auth,
    /// What is kept of who did what.
    pub audit: Audit,
    /// Where spans go.
    pub telemetry: Telemetry,
    /// The gRPC server.
    pub grpc: Grpc,
    /// What bounds the pools.
    pub limits: Limits,
    /// What makes VMs, by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// The template that there is without anybody's doing.
    pub default_template: DefaultTemplate,
    /// The pool that there is without anybody's doing.
    pub default_pool: DefaultPool,
}

/// The gRPC server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grpc {
    /// Bytes of one request.
    pub max_message_bytes: usize,
    /// Bytes of requests that are under way, all together, beside the first of each.
    pub max_buffered_bytes: usize,
    /// Bytes of the headers of one request.
    pub max_header_bytes: u32,
    /// Calls at once on one connection.
    pub max_concurrent_streams: u32,
    /// Calls at once, over all connections.
    pub max_calls: usize,
    /// Calls at once of one tenant.
    pub max_calls_per_tenant: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one address, or of one user of the Unix socket.
    pub max_connections_per_peer: usize,
    /// How often calls from one address may be worth nothing: dropped, beyond a rate, or nobody's.
    pub wasted_rate: Rate,
    /// TLS handshakes at once.
    pub max_handshakes: usize,
    /// How long a handshake may take, and a client's first words after it.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long a request may take to arrive.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long a connection may be without a call.
    #[serde(with = "humantime_serde")]
    pub max_idle: Duration,
    /// Age at which a client is asked to connect anew.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Duration,
    /// How long it may take over that.
    #[serde(with = "humantime_serde")]
    pub max_connection_age_grace: Duration,
    /// How often a quiet connection is asked whether it lives.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// How long its answer may take.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
    /// How long the end of the server waits for calls under way.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

/// `templates/default`: made at a start when it is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultTemplate {
    /// Whether it is made.
    pub enabled: bool,
    /// Its kernel; unset: the guest's, where the provider boots one.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk; unset: the guest's, with its kernel.
    pub initrd: Option<PathBuf>,
    /// Its root disk; unset: the guest's, with its kernel.
    pub rootfs: Option<PathBuf>,
    /// Its container image, where the provider boots images.
    pub image: Option<String>,
    /// Its kernel command line, beside what the provider itself needs.
    pub boot_args: String,
    /// Its virtual CPUs.
    pub vcpu_count: u32,
    /// Its memory, in MiB.
    pub mem_size_mib: u64,
    /// Its vsock context id, where the provider has vsocks; unset: it has no vsock.
    pub vsock_cid: Option<u32>,
    /// What shows that it is ready: this text on its console. Unset: its agent answers.
    pub ready_marker: Option<String>,
    /// How long that may take.
    #[serde(with = "humantime_serde")]
    pub ready_timeout: Duration,
    /// Lines for its agent before it is captured.
    pub warm_up: Vec<String>,
}

/// `pools/default`: made at a start when it is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultPool {
    /// Whether it is made.
    pub enabled: bool,
    /// VMs to keep warm; unset: [`DEFAULT_DEPTH`], unless `miss_ratio` is set.
    pub depth: Option<usize>,
    /// In place of `depth`: as many as it takes for at most this share of acquires to find nothing
    /// warm.
    pub miss_ratio: Option<f64>,
    /// With `miss_ratio`: never fewer; unset: 0.
    pub min: Option<usize>,
    /// With `miss_ratio`: never more.
    pub max: Option<usize>,
    /// How they wait.
    pub warm_state: WarmState,
    /// Age at which a warm VM is replaced; unset: none.
    #[serde(with = "humantime_serde")]
    pub max_warm_age: Option<Duration>,
    /// Restores at once; unset: what the node bears.
    pub max_parallel_restores: Option<usize>,
    /// What an acquire does that finds nothing warm and does not say.
    pub default_overflow: Overflow,
    /// The lease of an acquire that does not say.
    #[serde(with = "humantime_serde")]
    pub default_ttl: Duration,
    /// The longest lease.
    #[serde(with = "humantime_serde")]
    pub max_ttl: Duration,
}

/// VMs that the default pool keeps warm unless something else is said.
pub const DEFAULT_DEPTH: usize = 4;
/// Where gRPC is served unless something else is said.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);
/// Where metrics and probes are served unless something else is said.
pub const DEFAULT_ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7071);

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN,
            socket: None,
            admin: DEFAULT_ADMIN,
            state: None,
            runtime: None,
            guest: None,
            log_format: LogFormat::Auto,
            log_level: "info".to_owned(),
            default_provider: None,
            reload_interval: Duration::from_secs(5),
            tls: Tls::default(),
            auth: Auth::default(),
            audit: Audit::default(),
            telemetry: Telemetry::default(),
            grpc: Grpc {
                max_message_bytes: 4 << 20,
                max_buffered_bytes: 64 << 20,
                max_header_bytes: 16 << 10,
                max_concurrent_streams: 1024,
                max_calls: 8192,
                max_calls_per_tenant: 4096,
                max_connections: 4096,
                max_connections_per_peer: 1024,
                wasted_rate: Rate { per_second: 100.0, burst: 1000 },
                max_handshakes: 128,
                handshake_timeout: Duration::from_secs(10),
                request_timeout: Duration::from_secs(30),
                max_idle: Duration::from_secs(600),
                max_connection_age: Duration::from_secs(12 * 3600),
                max_connection_age_grace: Duration::from_secs(3600),
                keepalive_interval: Duration::from_secs(30),
                keepalive_timeout: Duration::from_secs(10),
                shutdown_timeout: Duration::from_secs(10),
            },
            limits: Limits::default(),
            providers: BTreeMap::new(),
            default_template: DefaultTemplate {
                enabled: true,
                kernel: None,
                initrd: None,
                rootfs: None,
                image: None,
                boot_args: String::new(),
                vcpu_count: 1,
                mem_size_mib: 256,
                vsock_cid: None,
                ready_marker: None,
                ready_timeout: Duration::from_secs(120),
                warm_up: Vec::new(),
            },
            default_pool: DefaultPool {
                enabled: true,
                depth: None,
                miss_ratio: None,
                min: None,
                max: None,
                warm_state: WarmState::Running,
                max_warm_age: None,
                max_parallel_restores: None,
                default_overflow: Overflow::WarmElseCold,
                default_ttl: Duration::from_secs(300),
                max_ttl: Duration::from_secs(24 * 3600),
            },
        }
    }
}

impl DefaultPool {
    /// How many VMs it keeps.
    pub(crate) fn sizing(&self) -> Sizing {
        match self.miss_ratio {
            None => Sizing::Fixed { depth: self.depth.unwrap_or(DEFAULT_DEPTH) },
            Some(miss_ratio) => Sizing::Promised {
                miss_ratio,
                min: self.min.unwrap_or(0),
                max: self.max.unwrap_or(0),
            },
        }
    }
}

impl Config {
    /// The provider of whoever does not name one.
    pub fn default_provider(&self) -> Option<&str> {
        let first = || self.providers.keys().next().map(String::as_str);
        self.default_provider.as_deref().or_else(first)
    }
}

#[cfg(test)]
mod tests;
