//! What a VM is made of, as flags, as a table of a file, and as JSON.
//!
//! One type for all three, so that a field has one name everywhere: that of the API. Relative paths are
//! meant from where the user stands, or from the file that names them, and made absolute here: the
//! server's own directory is none of the user's business.

use std::path::{Path, PathBuf};

use clap::Args;
use hearth_proto::v1;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::{absolute, parse_duration};

/// What a VM is made of. Unset fields are the provider's to choose.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Spec {
    /// Kernel image to boot.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// Root disk; the file itself is never written.
    #[arg(long, value_name = "FILE")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Give the guest its root disk read-only.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) rootfs_read_only: Option<bool>,
    /// Image reference, for providers that start from images.
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) image: Option<String>,
    /// Virtual CPUs.
    #[arg(long = "vcpus", alias = "vcpu-count", value_name = "N")]
    pub(crate) vcpu_count: Option<i32>,
    /// Memory in MiB.
    #[arg(long = "mem-mib", alias = "mem-size-mib", value_name = "MIB")]
    pub(crate) mem_size_mib: Option<i32>,
    /// Kernel command line.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) boot_args: Option<String>,
    /// Note which pages the guest writes, for incremental snapshots.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) track_dirty_pages: Option<bool>,
    /// Network interfaces; by file only.
    #[arg(skip)]
    pub(crate) network_interfaces: Option<Vec<NetworkInterface>>,
    /// Disks beside the root disk; by file only.
    #[arg(skip)]
    pub(crate) extra_drives: Option<Vec<Drive>>,
    /// A vsock device; by file only.
    #[arg(skip)]
    pub(crate) vsock: Option<Vsock>,
    /// Limit on the root disk; by file only.
    #[arg(skip)]
    pub(crate) rootfs_rate_limit: Option<RateLimiter>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkInterface {
    pub(crate) iface_id: String,
    pub(crate) host_dev_name: String,
    pub(crate) guest_mac: String,
    pub(crate) rx_rate_limiter: Option<RateLimiter>,
    pub(crate) tx_rate_limiter: Option<RateLimiter>,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Drive {
    pub(crate) drive_id: String,
    pub(crate) path_on_host: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) rate_limiter: Option<RateLimiter>,
}

/// A vsock device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Vsock {
    pub(crate) guest_cid: u32,
}

/// Two buckets; an operation must find tokens in both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateLimiter {
    pub(crate) bandwidth: Option<TokenBucket>,
    pub(crate) ops: Option<TokenBucket>,
}

/// A bucket of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenBucket {
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) one_time_burst: Option<u64>,
    pub(crate) refill_time: Interval,
}

/// A duration that is read as people write it and shown as the API does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval(pub(crate) prost_types::Duration);

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = parse_duration(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(hearth_proto::convert::duration_to_wire(duration)))
    }
}

impl Spec {
    /// Whether nothing is set.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts what is set here over `spec`; relative paths are meant from `base`.
    pub(crate) fn lay_over(&self, spec: &mut v1::VmSpec, base: &Path) {
        let path = |path: &Path| absolute(base, path).to_string_lossy().into_owned();
        let put = |from: &Option<PathBuf>, to: &mut String| {
            if let Some(from) = from {
                *to = path(from);
            }
        };
        put(&self.kernel, &mut spec.kernel);
        put(&self.initrd, &mut spec.initrd);
        put(&self.rootfs, &mut spec.rootfs);
        if let Some(image) = &self.image {
            spec.image.clone_from(image);
        }
        spec.rootfs_read_only = self.rootfs_read_only.or(spec.rootfs_read_only);
        spec.vcpu_count = self.vcpu_count.or(spec.vcpu_count);
        spec.mem_size_mib = self.mem_size_mib.or(spec.mem_size_mib);
        spec.track_dirty_pages = self.track_dirty_pages.or(spec.track_dirty_pages);
        if self.boot_args.is_some() {
            spec.boot_args.clone_from(&self.boot_args);
        }
        if let Some(interfaces) = &self.network_interfaces {
            spec.network_interfaces = interfaces.iter().map(NetworkInterface::to_wire).collect();
        }
        if let Some(drives) = &self.extra_drives {
            spec.extra_drives = drives
                .iter()
                .map(|drive| v1::Drive {
                    drive_id: drive.drive_id.clone(),
                    path_on_host: path(&drive.path_on_host),
                    read_only: drive.read_only,
                    rate_limiter: drive.rate_limiter.as_ref().map(RateLimiter::to_wire),
                })
                .collect();
        }
        if let Some(vsock) = &self.vsock {
            spec.vsock = Some(v1::Vsock { guest_cid: vsock.guest_cid });
        }
        if let Some(limit) = self.rootfs_rate_limit.as_ref().map(RateLimiter::to_wire) {
            // A server may show another bucket of the same rate; that is no difference.
            let current = spec.rootfs_rate_limit.as_ref();
            if !current.is_some_and(|current| is_same_limit(current, &limit)) {
                spec.rootfs_rate_limit = Some(limit);
            }
        }
    }

    /// The API's form of it; relative paths are meant from `base`.
    pub(crate) fn to_wire(&self, base: &Path) -> v1::VmSpec {
        let mut spec = v1::VmSpec::default();
        self.lay_over(&mut spec, base);
        spec
    }
}

impl From<v1::VmSpec> for Spec {
    fn from(spec: v1::VmSpec) -> Self {
        let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
        Self {
            kernel: path(spec.kernel),
            initrd: path(spec.initrd),
            rootfs: path(spec.rootfs),
            rootfs_read_only: spec.rootfs_read_only,
            image: Some(spec.image).filter(|image| !image.is_empty()),
            vcpu_count: spec.vcpu_count,
            mem_size_mib: spec.mem_size_mib,
            boot_args: spec.boot_args,
            track_dirty_pages: spec.track_dirty_pages,
            network_interfaces: Some(
                spec.network_interfaces.into_iter().map(NetworkInterface::from).collect(),
            ),
            extra_drives: Some(
                spec.extra_drives
                    .into_iter()
                    .map(|drive| Drive {
                        drive_id: drive.drive_id,
                        path_on_host: drive.path_on_host.into(),
                        read_only: drive.read_only,
                        rate_limiter: drive.rate_limiter.map(RateLimiter::from),
                    })
                    .collect(),
            ),
            vsock: spec.vsock.map(|vsock| Vsock { guest_cid: vsock.guest_cid }),
            rootfs_rate_limit: spec.rootfs_rate_limit.map(RateLimiter::from),
        }
    }
}

impl NetworkInterface {
    fn to_wire(&self) -> v1::NetworkInterface {
        v1::NetworkInterface {
            iface_id: self.iface_id.clone(),
            host_dev_name: self.host_dev_name.clone(),
            guest_mac: self.guest_mac.clone(),
            rx_rate_limiter: self.rx_rate_limiter.as_ref().map(RateLimiter::to_wire),
            tx_rate_limiter: self.tx_rate_limiter.as_ref().map(RateLimiter::to_wire),
        }
    }
}

impl From<v1::NetworkInterface> for NetworkInterface {
    fn from(interface: v1::NetworkInterface) -> Self {
        Self {
            iface_id: interface.iface_id,
            host_dev_name: interface.host_dev_name,
            guest_mac: interface.guest_mac,
            rx_rate_limiter: interface.rx_rate_limiter.map(RateLimiter::from),
            tx_rate_limiter: interface.tx_rate_limiter.map(RateLimiter::from),
        }
    }
}

impl RateLimiter {
    fn to_wire(&self) -> v1::RateLimiter {
        let bucket = |bucket: &TokenBucket| v1::TokenBucket {
            size: bucket.size,
            one_time_burst: bucket.one_time_burst,
            refill_time: Some(bucket.refill_time.0),
        };
        v1::RateLimiter {
            bandwidth: self.bandwidth.as_ref().map(bucket),
            ops: self.ops.as_ref().map(bucket),
        }
    }
}

impl From<v1::RateLimiter> for RateLimiter {
    fn from(limiter: v1::RateLimiter) -> Self {
        let bucket = |bucket: v1::TokenBucket| TokenBucket {
            size: bucket.size,
            one_time_burst: bucket.one_time_burst,
            refill_time: Interval(bucket.refill_time.unwrap_or_default()),
        };
        Self { bandwidth: limiter.bandwidth.map(bucket), ops: limiter.ops.map(bucket) }
    }
}

/// Whether both let the same pass in a second.
fn is_same_limit(one: &v1::RateLimiter, other: &v1::RateLimiter) -> bool {
    let per_second = |bucket: Option<&v1::TokenBucket>| {
        let bucket = bucket?;
        let time = bucket.refill_time.unwrap_or_default();
        let seconds = time.seconds as f64 + f64::from(time.nanos) / 1e9;
        Some((bucket.size as f64 / seconds).round())
    };
    let rates = |limit: &v1::RateLimiter| {
        (per_second(limit.bandwidth.as_ref()), per_second(limit.ops.as_ref()))
    };
    rates(one) == rates(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_laid_over() {
        let mut spec = v1::VmSpec {
            kernel: "/old".to_owned(),
            mem_size_mib: Some(128),
            ..v1::VmSpec::default()
        };
        let change = Spec { kernel: Some("new".into()), vcpu_count: Some(2), ..Spec::default() };
        change.lay_over(&mut spec, Path::new("/base"));
        assert_eq!(spec.kernel, "/base/new");
        assert_eq!((spec.mem_size_mib, spec.vcpu_count), (Some(128), Some(2)));
    }

    #[test]
    fn a_file_has_every_field_of_the_api() {
        let text = r#"
            kernel = "k"
            mem_size_mib = 64
            vsock = { guest_cid = 7 }
            extra_drives = [{ drive_id = "d", path_on_host = "data", read_only = true }]
            rootfs_rate_limit = { ops = { size = 5, refill_time = "100ms" } }
            [[network_interfaces]]
            iface_id = "eth0"
            host_dev_name = "tap0"
        "#;
        let spec: Spec = toml::from_str(text).unwrap();
        let wire = spec.to_wire(Path::new("/b"));
        assert_eq!(wire.extra_drives[0].path_on_host, "/b/data");
        assert_eq!(wire.network_interfaces[0].iface_id, "eth0");
        let ops = wire.rootfs_rate_limit.as_ref().and_then(|limit| limit.ops).unwrap();
        assert_eq!(ops.refill_time.map(|time| time.nanos), Some(100_000_000));
        let again = Spec::from(wire.clone());
        assert_eq!(again.to_wire(Path::new("/elsewhere")), wire);
        assert!(toml::from_str::<Spec>("kernle = 'x'").is_err());
    }

    #[test]
    fn another_bucket_of_the_same_rate_is_no_difference() {
        let spec: Spec = toml::from_str(
            "rootfs_rate_limit = { bandwidth = { size = 100, refill_time = '100ms' } }",
        )
        .unwrap();
        let shown = v1::TokenBucket {
            size: 1000,
            one_time_burst: None,
            refill_time: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        };
        let mut wire = v1::VmSpec {
            rootfs_rate_limit: Some(v1::RateLimiter { bandwidth: Some(shown), ops: None }),
            ..Default::default()
        };
        let before = wire.clone();
        spec.lay_over(&mut wire, Path::new("/"));
        assert_eq!(wire, before);
    }
}
