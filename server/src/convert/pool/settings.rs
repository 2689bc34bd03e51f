//! What is asked of the settings of a pool, and which of them a mask names.

use std::time::Duration;

use hearth_pool::ids::{PoolId, TemplateId};
use hearth_pool::pool::{CutOver, Overflow, PoolConfig, Rollout, Sizing, WarmState};
use hearth_proto::v1;

use super::{DEFAULT_TTL, MAX_TTL};
use crate::check::Fields;

/// The most requests with which a VM is warmed up.
const MAX_WARM_UPS: usize = 64;
/// The longest request to an agent, in bytes.
const MAX_REQUEST_BYTES: usize = 4096;

/// The settings that a pool can be changed in, as paths of an update mask.
pub(crate) const PATHS: [&str; 13] = [
    "template",
    "sizing",
    "warm_state",
    "max_warm_age",
    "max_parallel_restores",
    "default_overflow",
    "default_ttl",
    "max_ttl",
    "priority",
    "rollout.cut_over",
    "rollout.max_surge",
    "refill_warm_up",
    "prefault_memory",
];

/// The paths of a mask that are several of ours, or a part of one. A sizing is one rule: a part of
/// it is as good as the whole.
const ALIASES: [(&str, &[&str]); 8] = [
    ("sizing.fixed", &["sizing"]),
    ("sizing.fixed.depth", &["sizing"]),
    ("sizing.promised", &["sizing"]),
    ("sizing.promised.miss_ratio", &["sizing"]),
    ("sizing.promised.min", &["sizing"]),
    ("sizing.promised.max", &["sizing"]),
    ("rollout", &["rollout.cut_over", "rollout.max_surge"]),
    ("*", &PATHS),
];

/// What is asked of the settings of a pool; `None`: the default.
#[derive(Debug)]
pub(crate) struct Settings {
    template: Option<TemplateId>,
    sizing: Option<Sizing>,
    warm_state: WarmState,
    max_warm_age: Option<Duration>,
    max_parallel_restores: usize,
    default_overflow: Overflow,
    default_ttl: Option<Duration>,
    max_ttl: Option<Duration>,
    priority: u32,
    rollout: Rollout,
    warm_up: Vec<String>,
    prefault: bool,
}

/// Reads the settings in `pool`; the template is required where `paths` has it. What is wrong goes
/// to `fields`.
pub(crate) fn settings(fields: &mut Fields, pool: &v1::Pool, paths: &[&str]) -> Settings {
    let has = |path: &str| paths.contains(&path);
    let template = has("template").then(|| fields.template("pool.template", &pool.template));
    let max_parallel_restores = "pool.max_parallel_restores";
    let priority = fields.count("pool.priority", pool.priority);
    Settings {
        template: template.flatten(),
        sizing: sizing(fields, pool.sizing.as_ref()),
        warm_state: warm_state(fields, pool.warm_state),
        max_warm_age: fields.duration("pool.max_warm_age", pool.max_warm_age),
        max_parallel_restores: fields.count(max_parallel_restores, pool.max_parallel_restores),
        default_overflow: overflow(fields, "pool.default_overflow", pool.default_overflow)
            .unwrap_or_default(),
        default_ttl: fields.duration("pool.default_ttl", pool.default_ttl),
        max_ttl: fields.duration("pool.max_ttl", pool.max_ttl),
        priority: u32::try_from(priority).unwrap_or(u32::MAX),
        rollout: rollout(fields, pool.rollout.unwrap_or_default()),
        warm_up: warm_up(fields, &pool.refill_warm_up),
        prefault: pool.prefault_memory,
    }
}

impl Settings {
    /// Takes them over into `config`, as far as `paths` has them; the node bears
    /// `max_parallel_restores`.
    pub(crate) fn apply(
        self,
        config: &mut PoolConfig,
        paths: &[&str],
        max_parallel_restores: usize,
    ) {
        for path in paths {
            match *path {
                "template" => self.template.iter().for_each(|it| config.template = it.clone()),
                "sizing" => config.sizing = self.sizing.unwrap_or(Sizing::Fixed { depth: 0 }),
                "warm_state" => config.warm_state = self.warm_state,
                "max_warm_age" => config.max_warm_age = self.max_warm_age,
                "max_parallel_restores" => {
                    config.max_parallel_restores = match self.max_parallel_restores {
                        0 => max_parallel_restores,
                        asked => asked,
                    };
                }
                "default_overflow" => config.default_overflow = self.default_overflow,
                "default_ttl" => config.default_ttl = self.default_ttl.unwrap_or(DEFAULT_TTL),
                "max_ttl" => config.max_ttl = self.max_ttl.unwrap_or(MAX_TTL),
                "priority" => config.priority = self.priority,
                "rollout.cut_over" => config.rollout.cut_over = self.rollout.cut_over,
                "rollout.max_surge" => config.rollout.max_surge = self.rollout.max_surge,
                "refill_warm_up" => config.warm_up.clone_from(&self.warm_up),
                "prefault_memory" => config.prefault = self.prefault,
                _ => {}
            }
        }
    }

    /// The configuration of a new pool.
    pub(crate) fn into_config(
        self,
        id: PoolId,
        max_parallel_restores: usize,
    ) -> Option<PoolConfig> {
        let mut config = new_config(id, self.template.clone()?, max_parallel_restores);
        // A pool whose longest lease is short has no longer one by default.
        let (default_ttl, max_ttl) = (self.default_ttl, self.max_ttl);
        self.apply(&mut config, &PATHS, max_parallel_restores);
        config.default_ttl =
            default_ttl.unwrap_or_else(|| DEFAULT_TTL.min(max_ttl.unwrap_or(MAX_TTL)));
        Some(config)
    }
}

/// A pool of `template` with every other setting at its default.
pub(crate) fn new_config(
    id: PoolId,
    template: TemplateId,
    max_parallel_restores: usize,
) -> PoolConfig {
    PoolConfig { max_parallel_restores, ..PoolConfig::new(id, template) }
}

/// The paths of an update mask; without one, every setting that is set in `pool`.
pub(crate) fn paths(
    fields: &mut Fields,
    mask: Option<&prost_types::FieldMask>,
    pool: &v1::Pool,
) -> Vec<&'static str> {
    let Some(mask) = mask else {
        let set = [
            !pool.template.is_empty(),
            pool.sizing.is_some(),
            pool.warm_state != 0,
            pool.max_warm_age.is_some(),
            pool.max_parallel_restores != 0,
            pool.default_overflow != 0,
            pool.default_ttl.is_some(),
            pool.max_ttl.is_some(),
            pool.priority != 0,
            pool.rollout.is_some(),
            pool.rollout.is_some(),
            !pool.refill_warm_up.is_empty(),
            pool.prefault_memory,
        ];
        return PATHS.into_iter().zip(set).filter_map(|(path, set)| set.then_some(path)).collect();
    };
    let mut paths = Vec::new();
    for asked in &mask.paths {
        let alias = ALIASES.iter().find(|(alias, _)| alias == asked);
        // All is all: beside other paths it says nothing.
        match alias.filter(|(alias, _)| *alias != "*" || mask.paths.len() == 1) {
            Some((_, several)) => paths.extend_from_slice(several),
            None => match PATHS.iter().find(|path| *path == asked) {
                Some(path) => paths.push(*path),
                None => fields.wrong("update_mask", format_args!("{asked:?} cannot be changed")),
            },
        }
    }
    paths
}

fn sizing(fields: &mut Fields, sizing: Option<&v1::Sizing>) -> Option<Sizing> {
    use v1::sizing::Mode;
    Some(match sizing?.mode.as_ref()? {
        Mode::Fixed(fixed) => {
            Sizing::Fixed { depth: fields.count("pool.sizing.fixed.depth", fixed.depth) }
        }
        Mode::Promised(promised) => Sizing::Promised {
            miss_ratio: promised.miss_ratio,
            min: fields.count("pool.sizing.promised.min", promised.min),
            max: fields.count("pool.sizing.promised.max", promised.max),
        },
    })
}

fn rollout(fields: &mut Fields, rollout: v1::pool::Rollout) -> Rollout {
    use v1::pool::CutOver as Wire;
    let cut_over = match fields.one_of("pool.rollout.cut_over", rollout.cut_over) {
        Some(Wire::Immediate) => CutOver::Immediate,
        Some(Wire::Unspecified | Wire::Rolling) | None => CutOver::Rolling,
    };
    Rollout { cut_over, max_surge: fields.count("pool.rollout.max_surge", rollout.max_surge) }
}

fn warm_up(fields: &mut Fields, requests: &[String]) -> Vec<String> {
    if requests.len() > MAX_WARM_UPS {
        let why = format_args!("there are more than {MAX_WARM_UPS}");
        fields.wrong("pool.refill_warm_up", why);
    }
    for (index, request) in requests.iter().enumerate().take(MAX_WARM_UPS) {
        if !is_agent_request(request) {
            let why = format_args!("it must be one line of 1 to {MAX_REQUEST_BYTES} bytes");
            fields.wrong(format!("pool.refill_warm_up[{index}]"), why);
        }
    }
    requests.to_vec()
}

/// Whether an agent can be asked this: one line of bounded length.
fn is_agent_request(request: &str) -> bool {
    (1..=MAX_REQUEST_BYTES).contains(&request.len()) && !request.contains(['\n', '\0'])
}

/// What an acquire asks to be done when nothing is warm; `None`: as the pool says.
pub(crate) fn overflow(fields: &mut Fields, field: &str, value: i32) -> Option<Overflow> {
    use v1::pool::Overflow as Wire;
    match fields.one_of(field, value)? {
        Wire::Unspecified => None,
        Wire::WarmElseCold => Some(Overflow::WarmElseCold),
        Wire::Wait => Some(Overflow::Wait),
        Wire::WarmOnly => Some(Overflow::WarmOnly),
        Wire::ColdOnly => Some(Overflow::ColdOnly),
    }
}

fn warm_state(fields: &mut Fields, value: i32) -> WarmState {
    use v1::pool::WarmState as Wire;
    match fields.one_of("pool.warm_state", value) {
        Some(Wire::Paused) => WarmState::Paused,
        Some(Wire::Unspecified | Wire::Running) | None => WarmState::Running,
    }
}

#[cfg(test)]
mod tests;
