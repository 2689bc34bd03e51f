use hearth_pool::error::Error;

use super::super::config_to_wire;
use super::*;

fn mask(paths: &[&str]) -> prost_types::FieldMask {
    prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }
}

fn violated(fields: &mut Fields) -> Vec<String> {
    let Err(Error::InvalidArgument(violations)) = fields.done() else { return Vec::new() };
    violations.into_iter().map(|it| it.field).collect()
}

#[test]
fn settings_survive_the_wire() {
    let id = |id| PoolId::parse(id).unwrap();
    let template = TemplateId::parse("t").unwrap();
    let mut config = new_config(id("p"), template, 8);
    config.warm_state = WarmState::Paused;
    config.max_warm_age = Some(Duration::from_secs(60));
    config.default_overflow = Overflow::Wait;
    config.priority = 7;
    config.rollout = Rollout { cut_over: CutOver::Immediate, max_surge: 3 };
    config.warm_up = vec!["ping".to_owned()];
    config.prefault = true;
    let promised = Sizing::Promised { miss_ratio: 0.001, min: 1, max: 64 };
    for sizing in [Sizing::Fixed { depth: 7 }, promised] {
        config.sizing = sizing;
        let mut fields = Fields::default();
        let read = settings(&mut fields, &config_to_wire(&config), &PATHS);
        fields.done().unwrap();
        assert_eq!(read.into_config(id("p"), 8), Some(config.clone()));
    }
}

#[test]
fn a_mask_names_settings_and_nothing_else() {
    let mut fields = Fields::default();
    let pool = v1::Pool { max_parallel_restores: 3, ..Default::default() };
    let all = mask(&["sizing.fixed.depth", "max_ttl"]);
    assert_eq!(paths(&mut fields, Some(&all), &pool), ["sizing", "max_ttl"]);
    assert_eq!(paths(&mut fields, None, &pool), ["max_parallel_restores"]);
    assert_eq!(paths(&mut fields, Some(&mask(&["*"])), &pool), PATHS);
    let promised = mask(&["sizing.promised.max", "rollout", "priority"]);
    let named = ["sizing", "rollout.cut_over", "rollout.max_surge", "priority"];
    assert_eq!(paths(&mut fields, Some(&promised), &pool), named);
    assert!(fields.done().is_ok());
    let foreign = ["status", "etag", "nonsense", "name", "*", "rollout.speed"];
    paths(&mut fields, Some(&mask(&foreign)), &pool);
    assert_eq!(violated(&mut fields).len(), foreign.len());
}

#[test]
fn a_part_of_a_rollout_is_changed_alone() {
    let mut config = new_config(PoolId::parse("p").unwrap(), TemplateId::parse("t").unwrap(), 8);
    config.rollout = Rollout { cut_over: CutOver::Immediate, max_surge: 3 };
    let asked = v1::pool::Rollout { cut_over: 0, max_surge: 9 };
    let pool = v1::Pool { rollout: Some(asked), ..Default::default() };
    let asked = settings(&mut Fields::default(), &pool, &[]);
    asked.apply(&mut config, &["rollout.max_surge"], 8);
    assert_eq!(config.rollout, Rollout { cut_over: CutOver::Immediate, max_surge: 9 });
}

#[test]
fn what_cannot_be_is_told_by_field() {
    let promised = v1::sizing::Promised { miss_ratio: 0.1, min: -1, max: -2 };
    let pool = v1::Pool {
        sizing: Some(v1::Sizing { mode: Some(v1::sizing::Mode::Promised(promised)) }),
        priority: -1,
        rollout: Some(v1::pool::Rollout { cut_over: 9, max_surge: -1 }),
        refill_warm_up: vec!["ping".to_owned(), "two\nlines".to_owned(), String::new()],
        ..Default::default()
    };
    let mut fields = Fields::default();
    settings(&mut fields, &pool, &[]);
    let named = [
        "priority",
        "sizing.promised.min",
        "sizing.promised.max",
        "rollout.cut_over",
        "rollout.max_surge",
        "refill_warm_up[1]",
        "refill_warm_up[2]",
    ];
    assert_eq!(violated(&mut fields), named.map(|it| format!("pool.{it}")));
}
