//! A pool's settings, as flags and as a table of a file.

use std::time::Duration;

use clap::{Args, ValueEnum};
use hearth_proto::convert::duration_to_wire;
use hearth_proto::v1;
use serde::Deserialize;

use crate::cli::leases::Overflow;
use crate::cli::text::{parse_duration, qualify};

/// What can be said of a pool. What is not said is left as it is, or at its default.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The template whose VMs it keeps.
    #[arg(long, short, value_name = "TEMPLATE")]
    pub(crate) template: Option<String>,
    /// VMs to keep warm; 0 makes every acquire a restore.
    #[arg(long, short, value_name = "N", conflicts_with_all = ["miss_ratio", "min", "max"])]
    pub(crate) depth: Option<i32>,
    /// Keep as many as it takes for at most this share of acquires to find nothing warm.
    #[arg(long, value_name = "RATIO", requires = "max")]
    pub(crate) miss_ratio: Option<f64>,
    /// With --miss-ratio: never keep fewer.
    #[arg(long, value_name = "N", requires = "miss_ratio")]
    pub(crate) min: Option<i32>,
    /// With --miss-ratio: never keep more.
    #[arg(long, value_name = "N", requires = "miss_ratio")]
    pub(crate) max: Option<i32>,
    /// How VMs wait.
    #[arg(long, value_enum, value_name = "STATE")]
    pub(crate) warm_state: Option<WarmState>,
    /// Age at which a warm VM is replaced.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    #[serde(with = "humantime_serde")]
    pub(crate) max_warm_age: Option<Duration>,
    /// Restores that may run at once for this pool.
    #[arg(long, value_name = "N")]
    pub(crate) max_parallel_restores: Option<i32>,
    /// What an acquire does that finds nothing warm and does not say itself.
    #[arg(long = "overflow", value_enum, value_name = "POLICY")]
    pub(crate) default_overflow: Option<Overflow>,
    /// Length of a lease when the caller does not say.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    #[serde(with = "humantime_serde")]
    pub(crate) default_ttl: Option<Duration>,
    /// Longest lease.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    #[serde(with = "humantime_serde")]
    pub(crate) max_ttl: Option<Duration>,
    /// Who gets warm VMs first where the node's budget is not enough: the higher. 0 unless said.
    #[arg(long, value_name = "N")]
    pub(crate) priority: Option<i32>,
    /// When VMs of an older generation are handed out no more.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) cut_over: Option<CutOver>,
    /// How many VMs more than the target there may be while a new generation comes in; 0: a
    /// quarter of the target.
    #[arg(long, value_name = "N")]
    pub(crate) max_surge: Option<i32>,
    /// A line for the agent of every VM that is restored, before the VM counts as warm; may be
    /// given several times, and once empty for none.
    #[arg(long, value_name = "LINE")]
    pub(crate) refill_warm_up: Option<Vec<String>>,
    /// Read in the memory of every VM that is restored to wait, before it counts as warm, where the
    /// provider can: the flag alone, or `=false` for no more.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) prefault_memory: Option<bool>,
}

/// When VMs of an older generation are handed out no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CutOver {
    /// As new ones replace them.
    Rolling,
    /// From the change on.
    Immediate,
}

/// How VMs wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WarmState {
    /// They run.
    Running,
    /// They are paused and use no CPU.
    Paused,
}

impl Settings {
    /// Puts what is said here over `pool` and names the fields that were said.
    pub(crate) fn lay_over(&self, pool: &mut v1::Pool) -> Vec<String> {
        let mut paths = Vec::new();
        let mut said = |path: &str| paths.push(path.to_owned());
        if let Some(template) = &self.template {
            pool.template = qualify("templates", template);
            said("template");
        }
        if let Some(mode) = self.sizing() {
            pool.sizing = Some(v1::Sizing { mode: Some(mode) });
            said("sizing");
        }
        if let Some(warm_state) = self.warm_state {
            let state = match warm_state {
                WarmState::Running => v1::pool::WarmState::Running,
                WarmState::Paused => v1::pool::WarmState::Paused,
            };
            pool.set_warm_state(state);
            said("warm_state");
        }
        if let Some(age) = self.max_warm_age {
            pool.max_warm_age = Some(duration_to_wire(age));
            said("max_warm_age");
        }
        if let Some(restores) = self.max_parallel_restores {
            pool.max_parallel_restores = restores;
            said("max_parallel_restores");
        }
        if let Some(overflow) = self.default_overflow {
            pool.default_overflow = overflow.to_wire();
            said("default_overflow");
        }
        if let Some(ttl) = self.default_ttl {
            pool.default_ttl = Some(duration_to_wire(ttl));
            said("default_ttl");
        }
        if let Some(ttl) = self.max_ttl {
            pool.max_ttl = Some(duration_to_wire(ttl));
            said("max_ttl");
        }
        if let Some(priority) = self.priority {
            pool.priority = priority;
            said("priority");
        }
        if let Some(cut_over) = self.cut_over {
            let cut_over = match cut_over {
                CutOver::Rolling => v1::pool::CutOver::Rolling,
                CutOver::Immediate => v1::pool::CutOver::Immediate,
            };
            pool.rollout.get_or_insert_default().set_cut_over(cut_over);
            said("rollout.cut_over");
        }
        if let Some(max_surge) = self.max_surge {
            pool.rollout.get_or_insert_default().max_surge = max_surge;
            said("rollout.max_surge");
        }
        if let Some(lines) = &self.refill_warm_up {
            pool.refill_warm_up = match lines.as_slice() {
                [line] if line.is_empty() => Vec::new(),
                lines => lines.to_vec(),
            };
            said("refill_warm_up");
        }
        if let Some(prefault_memory) = self.prefault_memory {
            pool.prefault_memory = prefault_memory;
            said("prefault_memory");
        }
        paths
    }

    /// What is wrong with these settings by themselves, as flags cannot be but a file can.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        match (self.depth, self.miss_ratio, self.max, self.min) {
            (Some(_), Some(_), ..) => Some("depth and miss_ratio exclude each other"),
            (_, Some(_), None, _) => Some("miss_ratio needs max"),
            (_, None, Some(_), _) | (_, None, _, Some(_)) => Some("min and max go with miss_ratio"),
            _ => None,
        }
    }

    fn sizing(&self) -> Option<v1::sizing::Mode> {
        let fixed = self.depth.map(|depth| v1::sizing::Mode::Fixed(v1::sizing::Fixed { depth }));
        let promised = self.miss_ratio.map(|miss_ratio| {
            let (min, max) = (self.min.unwrap_or(0), self.max.unwrap_or(0));
            v1::sizing::Mode::Promised(v1::sizing::Promised { miss_ratio, min, max })
        });
        fixed.or(promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_names_what_was_said() {
        let settings = Settings {
            depth: Some(3),
            default_ttl: Some(Duration::from_secs(60)),
            ..Settings::default()
        };
        let mut pool = v1::Pool { template: "templates/a".to_owned(), ..Default::default() };
        assert_eq!(settings.lay_over(&mut pool), ["sizing", "default_ttl"]);
        assert_eq!(pool.template, "templates/a");
        assert_eq!(pool.default_ttl.map(|ttl| ttl.seconds), Some(60));
    }

    #[test]
    fn a_part_of_a_rollout_is_said_alone() {
        let settings = Settings {
            max_surge: Some(3),
            refill_warm_up: Some(vec![String::new()]),
            prefault_memory: Some(false),
            ..Settings::default()
        };
        let warm_up = vec!["ping".to_owned()];
        let mut pool =
            v1::Pool { refill_warm_up: warm_up, prefault_memory: true, ..Default::default() };
        pool.rollout.get_or_insert_default().set_cut_over(v1::pool::CutOver::Immediate);
        let said = settings.lay_over(&mut pool);
        assert_eq!(said, ["rollout.max_surge", "refill_warm_up", "prefault_memory"]);
        let rollout = pool.rollout.unwrap();
        assert_eq!((rollout.cut_over(), rollout.max_surge), (v1::pool::CutOver::Immediate, 3));
        assert!(pool.refill_warm_up.is_empty(), "an empty line alone is none");
        assert!(!pool.prefault_memory);
    }

    #[test]
    fn a_file_that_contradicts_itself_is_told() {
        let complaint = |text: &str| toml::from_str::<Settings>(text).unwrap().complaint();
        assert!(complaint("depth = 1\nmiss_ratio = 0.1\nmax = 3").is_some());
        assert!(complaint("miss_ratio = 0.1").is_some());
        assert!(complaint("min = 1").is_some());
        assert_eq!(complaint("miss_ratio = 0.1\nmax = 3"), None);
        assert_eq!(complaint("depth = 1\nmax_ttl = '1h'"), None);
    }
}
