//! The dashboard, query by query, and what a scrape looks like to promtool.

use std::path::Path;

use serde_json::Value;

use crate::load::{Load, Pace};
use crate::node::Node;
use crate::shipped;
use crate::tools::{Prometheus, get, promtool, wait_for};

/// How many times quicker than shipped the rules' windows are.
const QUICKER: u64 = 60;

/// A scrape is as it should be, it is read, and every query of the dashboard answers numbers while there is load.
pub(crate) fn finds_it() {
    let node = Node::start("[default_pool]\ndepth = 4\n");
    let pace = Pace { with_dedicated: true, ..Pace::STEADY };
    let load = Load::start(node.address(), pace);
    let scrape = get(node.admin, "/metrics").unwrap();
    promtool(&["check", "metrics"], Path::new("."), &scrape);
    let rules = shipped::scaled(QUICKER);
    let prometheus = Prometheus::start(&[("node", node.admin)], &rules, 300_000 / QUICKER);
    let busy = "rate(hearth_acquires_total{source=\"warm\"}[5s]) > 0";
    wait_for("Prometheus has read some acquires", || prometheus.query(busy).pop());

    let dashboard: Value =
        serde_json::from_str(&shipped::read("deploy/grafana/hearth.json")).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard["panels"], &mut queries);
    assert!(queries.len() >= 20, "{} queries", queries.len());
    for query in queries {
        let shown = query.replace("$__rate_interval", "5s");
        let shown = ["$instance", "$pool"].iter().fold(shown, |shown, it| shown.replace(it, ".+"));
        assert!(!shown.contains('$'), "{query} has a variable that is not known");
        let is_number = |it: &Value| {
            it["value"][1]
                .as_str()
                .and_then(|it| it.parse::<f64>().ok())
                .is_some_and(f64::is_finite)
        };
        wait_for(&query, || prometheus.query(&shown).iter().any(is_number).then_some(()));
    }
    load.stop();
}

/// Every `expr` of panels, those in rows too.
fn collect(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(text) if name == "expr" => into.push(text.to_owned()),
                    _ => collect(field, into),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|it| collect(it, into)),
        _ => {}
    }
}
