//! Each alert fires while its fault is there, in a real Prometheus that reads a real hearth, by the rules as they
//! are shipped with their durations alone scaled down.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::{Load, Pace};
use crate::node::Node;
use crate::scenes::{Fault, SCENES, Scene};
use crate::shipped;
use crate::tools::Prometheus;

/// How many times quicker than shipped everything goes: five minutes are three seconds.
const QUICKER: u64 = 100;
/// How far Prometheus looks back for a value: five minutes, scaled.
const LOOK_BACK_MS: u64 = 300_000 / QUICKER;
/// How long an alert may take to fire or to resolve. The longest window that has to pass is six hours, scaled.
const PATIENCE_S: u64 = 900;
/// How soon a fault that passes by itself is seen, unless it has to be made again.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// The one to which nothing is done.
const HEALTHY: &str = "healthy";
/// What is about time alone: a machine that has too much to do may fire these.
const OF_TIME: [&str; 3] = ["HearthDown", "HearthAcquireSlow", "HearthJournalSlow"];

/// An alert that is shipped and that no scene fires would be one that nobody has seen.
pub(crate) fn every_alert_has_its_fault() {
    let faults: BTreeSet<_> =
        SCENES.iter().flat_map(|it| it.alerts).map(|it| it.to_string()).collect();
    assert_eq!(faults, shipped::alerts());
}

/// What became of one alert.
struct Outcome {
    alert: &'static str,
    fault: &'static str,
    fired: f64,
    resolved: f64,
}

/// Makes the faults, all at once, each on a hearth of its own.
pub(crate) fn fire_and_resolve() {
    let all = std::env::var("HEARTH_ALERTS").is_ok_and(|it| it == "all");
    if all && let Err(error) = Command::new("strace").arg("--version").output() {
        panic!("HEARTH_ALERTS=all takes strace: {error}");
    }
    let scenes: Vec<_> = SCENES.iter().filter(|it| all || it.is_short).collect();
    let nodes: Vec<_> = scenes.iter().map(|scene| Node::start(scene.config)).collect();
    let healthy = Node::start("[default_pool]\ndepth = 4\n");
    let mut targets: Vec<_> =
        scenes.iter().zip(&nodes).map(|(scene, node)| (scene.name, node.admin)).collect();
    targets.push((HEALTHY, healthy.admin));
    let prometheus = Prometheus::start(&targets, &shipped::scaled(QUICKER), LOOK_BACK_MS);
    let load = Load::start(healthy.address(), Pace::STEADY);
    let played: Vec<_> = std::thread::scope(|scope| {
        let prometheus = &prometheus;
        let run = |(scene, node)| scope.spawn(move || play(scene, node, prometheus));
        let running: Vec<_> = scenes.iter().copied().zip(nodes).map(run).collect();
        running.into_iter().map(ScopedJoinHandle::join).collect()
    });
    load.stop();
    println!("| alert | fault | fired after | resolved after |\n|---|---|---|---|");
    for Outcome { alert, fault, fired, resolved } in played.iter().flatten().flatten() {
        println!("| {alert} | {fault} | {fired:.1} s | {resolved:.1} s |");
    }
    // Why was said when it happened; what became of the others is above.
    let failed = scenes.iter().zip(&played).filter(|it| it.1.is_err()).map(|it| it.0.name);
    assert_eq!(failed.collect::<Vec<_>>(), [""; 0], "scenes that did not go as they should");
    let fired = format!(
        "count by (alertname) (count_over_time(ALERTS{{alertstate=\"firing\", instance=\"{HEALTHY}\"}}[1h]))"
    );
    let names =
        prometheus.query(&fired).into_iter().map(|it| it["metric"]["alertname"].to_string());
    let names: Vec<_> = names.filter(|it| !OF_TIME.contains(&it.trim_matches('"'))).collect();
    assert!(names.is_empty(), "nothing was done to it, and there were {names:?}");
}

fn play(scene: &Scene, mut node: Node, prometheus: &Prometheus) -> Vec<Outcome> {
    let mut load = Load::start(node.address(), scene.pace);
    let firing = |alert: &str| {
        let name = scene.name;
        let query =
            format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\", instance=\"{name}\"}}");
        !prometheus.query(&query).is_empty()
    };
    // Some windows' worth of what is usual.
    std::thread::sleep(Duration::from_secs(8));
    for alert in scene.alerts.iter().filter(|it| !OF_TIME.contains(it)) {
        assert!(!firing(alert), "{alert} fires before {}", scene.fault);
    }
    let begun = Instant::now();
    if let Some(pace) = scene.fault_pace {
        load.stop();
        load = Load::start(node.address(), pace);
    }
    let mut fault = (scene.inject)(&mut node);
    let mut made = Instant::now();
    // One that passes by itself may have passed unseen on a machine that has too much to do.
    let again = &mut || {
        if matches!(fault, Fault::Passing) && made.elapsed() >= SEEN_WITHIN {
            fault = (scene.inject)(&mut node);
            made = Instant::now();
        }
    };
    let fired = until(scene, true, begun, &firing, again);
    let healed = Instant::now();
    fault.heal(&node);
    if scene.fault_pace.is_some() {
        load.stop();
        load = Load::start(node.address(), scene.pace);
    }
    let resolved = until(scene, false, healed, &firing, &mut || ());
    load.stop();
    let times = scene.alerts.iter().zip(fired.into_iter().zip(resolved));
    let outcome = |(alert, (fired, resolved)): (&&'static str, _)| {
        let (alert, fault) = (*alert, scene.fault);
        Outcome { alert, fault, fired, resolved }
    };
    times.map(outcome).collect()
}

/// Waits until every alert of `scene` has fired, or has resolved, and does `meanwhile`; answers how long each took, in
/// seconds.
fn until(
    scene: &Scene,
    fires: bool,
    since: Instant,
    firing: &dyn Fn(&str) -> bool,
    meanwhile: &mut dyn FnMut(),
) -> Vec<f64> {
    let mut times = vec![None; scene.alerts.len()];
    loop {
        for (alert, time) in scene.alerts.iter().zip(&mut times).filter(|it| it.1.is_none()) {
            *time = (firing(alert) == fires).then(|| since.elapsed().as_secs_f64());
        }
        let missing: Vec<_> =
            scene.alerts.iter().zip(&times).filter(|it| it.1.is_none()).map(|it| it.0).collect();
        if missing.is_empty() {
            return times.into_iter().flatten().collect();
        }
        let what = if fires { "do not fire" } else { "do not resolve" };
        assert!(since.elapsed().as_secs() < PATIENCE_S, "{missing:?} {what}: {}", scene.fault);
        meanwhile();
        std::thread::sleep(Duration::from_millis(250));
    }
}
