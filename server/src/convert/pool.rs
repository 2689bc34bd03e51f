//! Pools: their settings in and out, and how they stand.

use std::time::{Duration, SystemTime};

use hearth_pool::error::{Error, Result};
use hearth_pool::ids::PoolId;
use hearth_pool::pool::{Overflow, Pool, PoolConfig, Sizing, WarmState};
use hearth_proto::{names, v1};

use super::{count, duration, time};
use crate::check::Fields;

pub(crate) use hearth_pool::pool::{DEFAULT_MAX_TTL as MAX_TTL, DEFAULT_TTL};

/// The settings that a pool can be changed in, as paths of an update mask.
pub(crate) const PATHS: [&str; 8] = [
    "template",
    "sizing",
    "warm_state",
    "max_warm_age",
    "max_parallel_restores",
    "default_overflow",
    "default_ttl",
    "max_ttl",
];

/// What is asked of the settings of a pool; `None`: the default.
#[derive(Debug)]
pub(crate) struct Settings {
    template: Option<hearth_pool::ids::TemplateId>,
    sizing: Option<Sizing>,
    warm_state: WarmState,
    max_warm_age: Option<Duration>,
    max_parallel_restores: usize,
    default_overflow: Overflow,
    default_ttl: Option<Duration>,
    max_ttl: Option<Duration>,
}

/// Reads the settings in `pool`; the template is required where `paths` has it.
///
/// # Errors
/// `Unimplemented` for a promise; what is wrong goes to `fields`.
pub(crate) fn settings(fields: &mut Fields, pool: &v1::Pool, paths: &[&str]) -> Result<Settings> {
    use v1::sizing::Mode;
    let has = |path: &str| paths.contains(&path);
    let sizing = match pool.sizing.as_ref().and_then(|sizing| sizing.mode.as_ref()) {
        Some(Mode::Fixed(fixed)) => {
            Some(Sizing::Fixed { depth: fields.count("pool.sizing.fixed.depth", fixed.depth) })
        }
        Some(Mode::Promised(_)) => {
            return Err(Error::Unimplemented { what: "sizing by a promised miss ratio" });
        }
        None => None,
    };
    let template = has("template").then(|| fields.template("pool.template", &pool.template));
    let max_parallel_restores = "pool.max_parallel_restores";
    Ok(Settings {
        template: template.flatten(),
        sizing,
        warm_state: warm_state(fields, pool.warm_state),
        max_warm_age: fields.duration("pool.max_warm_age", pool.max_warm_age),
        max_parallel_restores: fields.count(max_parallel_restores, pool.max_parallel_restores),
        default_overflow: overflow(fields, "pool.default_overflow", pool.default_overflow)
            .unwrap_or_default(),
        default_ttl: fields.duration("pool.default_ttl", pool.default_ttl),
        max_ttl: fields.duration("pool.max_ttl", pool.max_ttl),
    })
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
    template: hearth_pool::ids::TemplateId,
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
        ];
        return PATHS.into_iter().zip(set).filter_map(|(path, set)| set.then_some(path)).collect();
    };
    if mask.paths == ["*"] {
        return PATHS.to_vec();
    }
    let mut paths = Vec::new();
    for asked in &mask.paths {
        // A sizing is one rule: a part of it is as good as the whole.
        let asked_path = match asked.as_str() {
            "sizing.fixed" | "sizing.fixed.depth" => "sizing",
            path => path,
        };
        match PATHS.iter().find(|path| **path == asked_path) {
            Some(path) => paths.push(*path),
            None => fields.wrong("update_mask", format_args!("{asked:?} cannot be changed")),
        }
    }
    paths
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

/// A pool on the wire, as it stands at `now`.
pub(crate) fn to_wire(pool: &Pool, draining: bool, now: SystemTime) -> v1::Pool {
    let (status, config) = (pool.status(), pool.config());
    let breaker = v1::pool::Breaker {
        open: status.breaker_open,
        reason: status.reason,
        failures: i32::try_from(status.failures).unwrap_or(i32::MAX),
        retry_time: status.breaker_open.then(|| time(now + status.retry_after)).flatten(),
    };
    v1::Pool {
        status: Some(v1::pool::Status {
            warm: count(status.warm),
            restoring: count(status.restoring),
            leased: count(status.leased),
            quarantined: count(status.quarantined),
            target: count(status.target),
            waiting: count(status.waiting),
            generation: status.generation,
            breaker: Some(breaker),
            draining,
            prewarmed: 0,
        }),
        ..config_to_wire(&config)
    }
}

/// A pool's settings on the wire.
pub(crate) fn config_to_wire(config: &PoolConfig) -> v1::Pool {
    use v1::pool::{Overflow as WireOverflow, WarmState as WireWarmState};
    let warm_state = match config.warm_state {
        WarmState::Running => WireWarmState::Running,
        WarmState::Paused => WireWarmState::Paused,
    };
    let overflow = match config.default_overflow {
        Overflow::WarmElseCold => WireOverflow::WarmElseCold,
        Overflow::Wait => WireOverflow::Wait,
        Overflow::WarmOnly => WireOverflow::WarmOnly,
        Overflow::ColdOnly => WireOverflow::ColdOnly,
    };
    let Sizing::Fixed { depth } = config.sizing;
    let fixed = v1::sizing::Fixed { depth: count(depth) };
    v1::Pool {
        name: names::POOLS.name(config.id.as_str()),
        template: names::TEMPLATES.name(config.template.as_str()),
        sizing: Some(v1::Sizing { mode: Some(v1::sizing::Mode::Fixed(fixed)) }),
        warm_state: warm_state.into(),
        max_warm_age: config.max_warm_age.and_then(duration),
        max_parallel_restores: count(config.max_parallel_restores),
        default_overflow: overflow.into(),
        default_ttl: duration(config.default_ttl),
        max_ttl: duration(config.max_ttl),
        status: None,
        etag: config.etag.clone(),
        create_time: time(config.create_time),
        update_time: time(config.update_time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(paths: &[&str]) -> prost_types::FieldMask {
        prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn settings_survive_the_wire() {
        let id = |id| PoolId::parse(id).unwrap();
        let template = hearth_pool::ids::TemplateId::parse("t").unwrap();
        let mut config = new_config(id("p"), template, 8);
        config.sizing = Sizing::Fixed { depth: 7 };
        config.warm_state = WarmState::Paused;
        config.max_warm_age = Some(Duration::from_secs(60));
        config.default_overflow = Overflow::Wait;
        let mut fields = Fields::default();
        let read = settings(&mut fields, &config_to_wire(&config), &PATHS).unwrap();
        fields.done().unwrap();
        assert_eq!(read.into_config(id("p"), 8), Some(config));
    }

    #[test]
    fn a_mask_names_settings_and_nothing_else() {
        let mut fields = Fields::default();
        let pool = v1::Pool { max_parallel_restores: 3, ..Default::default() };
        let all = mask(&["sizing.fixed.depth", "max_ttl"]);
        assert_eq!(paths(&mut fields, Some(&all), &pool), ["sizing", "max_ttl"]);
        assert_eq!(paths(&mut fields, None, &pool), ["max_parallel_restores"]);
        assert_eq!(paths(&mut fields, Some(&mask(&["*"])), &pool), PATHS);
        assert!(fields.done().is_ok());
        paths(&mut fields, Some(&mask(&["status", "etag", "nonsense", "name"])), &pool);
        let Err(Error::InvalidArgument(violations)) = fields.done() else { panic!() };
        assert_eq!(violations.len(), 4);
    }

    #[test]
    fn a_promise_is_not_built_and_said_not_to_be() {
        let mode = v1::sizing::Mode::Promised(v1::sizing::Promised::default());
        let pool = v1::Pool { sizing: Some(v1::Sizing { mode: Some(mode) }), ..Default::default() };
        let read = settings(&mut Fields::default(), &pool, &[]);
        assert!(matches!(read, Err(Error::Unimplemented { .. })));
    }
}
