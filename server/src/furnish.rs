//! The default template and the default pool: made at a start where they are not there.
//!
//! What an operator has made of them stays: only what is absent is made, and built anew is only
//! what was built here and has failed. What was lost, or no longer fits its host, is built again by the
//! recovery, as any other template's is.

use std::sync::Arc;

use hearth_pool::error::{Error, Result};
use hearth_pool::ids::{PoolId, TemplateId};
use hearth_pool::manager::Manager;
use hearth_pool::pool::PoolConfig;
use hearth_pool::templates::{Template, TemplateState};
use hearth_providers::VmSpec;
use hearth_providers::readiness::Readiness;

#[cfg(any(
    feature = "qemu",
    feature = "firecracker",
    feature = "docker",
    feature = "apple-container",
    feature = "smolvm"
))]
use crate::config::DefaultGuest;
#[cfg(feature = "qemu")]
use crate::config::dirs;
use crate::config::{Config, DefaultPool, DefaultTemplate};

/// The id of both.
const DEFAULT: &str = "default";

/// What a kind says whose image must be named.
#[cfg(any(feature = "docker", feature = "apple-container", feature = "smolvm"))]
const NO_IMAGE: &str = "default_template.image: nothing is said, and VMs of this kind are made \
     from a container image: set it, or `default_template.enabled = false`";

/// What a kind says whose kernel must be named.
#[cfg(feature = "firecracker")]
const NO_KERNEL: &str = "default_template.kernel: nothing is said, and the guest of scripts/guest \
     does not boot on Firecracker, which takes no compressed kernel: set `default_template.kernel` \
     to an uncompressed one (`vmlinux`, an ELF file, on x86-64), with `initrd` or `rootfs` as it \
     needs and `ready_marker`, the text on its console that says that it is ready; or \
     `default_template.enabled = false`, and `hearth templates create` with files of your own";

/// The spec of the default template, found before anything is bound or opened.
///
/// # Errors
/// What is missing, and what makes it.
pub(crate) fn default_spec(config: &Config) -> Result<VmSpec, String> {
    let DefaultTemplate { boot_args, vcpu_count, mem_size_mib, vsock_cid, .. } =
        &config.default_template;
    let sized = VmSpec {
        boot_args: boot_args.clone(),
        image: config.default_template.image.clone(),
        vcpu_count: *vcpu_count,
        mem_size_mib: *mem_size_mib,
        vsock_cid: *vsock_cid,
        ..VmSpec::default()
    };
    let template = &config.default_template;
    if let Some(kernel) = &template.kernel {
        let (kernel, initrd) = (Some(kernel.clone()), template.initrd.clone());
        return Ok(VmSpec { kernel, initrd, rootfs: template.rootfs.clone(), ..sized });
    }
    let provider = config.default_provider().and_then(|name| config.providers.get(name));
    match provider.map(|provider| provider.kind.default_guest()) {
        #[cfg(feature = "qemu")]
        Some(DefaultGuest::Shipped) if template.enabled => {
            let guest = dirs::find_guest(config.guest.as_deref())?;
            Ok(VmSpec {
                kernel: Some(guest.kernel),
                initrd: Some(guest.initrd),
                rootfs: Some(guest.rootfs),
                ..sized
            })
        }
        #[cfg(feature = "firecracker")]
        Some(DefaultGuest::OwnKernel) if template.enabled => Err(NO_KERNEL.to_owned()),
        #[cfg(any(feature = "docker", feature = "apple-container", feature = "smolvm"))]
        Some(DefaultGuest::OwnImage) if template.enabled && template.image.is_none() => {
            Err(NO_IMAGE.to_owned())
        }
        _ => Ok(sized),
    }
}

/// Makes what is not there.
///
/// # Errors
/// Those of making it; a build that fails later is the template's own to show.
pub(crate) async fn furnish(manager: &Arc<Manager>, config: &Config, spec: VmSpec) -> Result<()> {
    let id = |error: hearth_providers::id::InvalidId| Error::Internal(error.to_string());
    let template = TemplateId::parse(DEFAULT).map_err(id)?;
    if config.default_template.enabled {
        let recipe = recipe(&config.default_template, template.clone(), manager, spec)?;
        match manager.template(&template) {
            Err(_) => drop(manager.create_template(recipe, false).await?),
            Ok(former) if matches!(former.state, TemplateState::Failed(_)) && !former.imported => {
                drop(manager.create_template(recipe, true).await?);
            }
            Ok(_) => {}
        }
    }
    let pool = PoolId::parse(DEFAULT).map_err(id)?;
    if config.default_pool.enabled && manager.pool(&pool).is_err() {
        if manager.template(&template).is_err() {
            tracing::warn!("there is no default template, and so no default pool");
            return Ok(());
        }
        let borne = config.limits.max_parallel_restores;
        let config = pool_config(&config.default_pool, pool, template, borne);
        manager.create_pool(config, false).await?;
    }
    Ok(())
}

fn recipe(
    settings: &DefaultTemplate,
    id: TemplateId,
    manager: &Manager,
    spec: VmSpec,
) -> Result<Template> {
    let provider = &manager.provider("")?.name;
    Ok(Template {
        readiness: match &settings.ready_marker {
            Some(marker) => Readiness::ConsoleMarker(marker.clone()),
            // Where guests cannot be talked to there is nothing more to wait for.
            None if !manager.provider("")?.runtime.capabilities().guest_channel => {
                Readiness::Running
            }
            None => Readiness::AgentAnswers,
        },
        ready_timeout: settings.ready_timeout,
        warm_up: settings.warm_up.clone(),
        ..Template::new(id, provider, spec)
    })
}

pub(crate) fn pool_config(
    settings: &DefaultPool,
    id: PoolId,
    template: TemplateId,
    borne: usize,
) -> PoolConfig {
    PoolConfig {
        sizing: settings.sizing(),
        warm_state: settings.warm_state,
        max_warm_age: settings.max_warm_age,
        max_parallel_restores: settings.max_parallel_restores.unwrap_or(borne),
        default_overflow: settings.default_overflow,
        default_ttl: settings.default_ttl,
        max_ttl: settings.max_ttl,
        ..PoolConfig::new(id, template)
    }
}
