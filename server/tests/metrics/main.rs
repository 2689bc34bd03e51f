//! Every metric there is, from 0 and under load. A process of its own: the recorder is one a process.

#![allow(clippy::unwrap_used, reason = "a test ends at what fails")]

mod agrees;
mod listed;

use std::time::Duration;

use hdrhistogram::Histogram;
use hearth_proto::HearthClient;
use hearth_proto::v1::{self, AcquireVmRequest};
use hearth_server::config::{Config, ProviderConfig, ProviderKind};
use hearth_server::serve::Hearth;
use hearth_server::telemetry::Levels;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn metrics(address: std::net::SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The value of the series whose name is `name` and whose labels contain all of `labels`.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    text.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}

/// Acquires that succeed, warm and cold, and that do not; answers what the warm ones took here, in
/// nanoseconds, as their answers say.
async fn work(client: &HearthClient) -> Histogram<u64> {
    let mut seen = Histogram::new(3).unwrap();
    for number in 0..400 {
        let overflow =
            if number % 10 == 0 { v1::pool::Overflow::ColdOnly } else { v1::pool::Overflow::Wait };
        let request = AcquireVmRequest {
            pool: "pools/default".to_owned(),
            overflow: overflow.into(),
            ..Default::default()
        };
        let got = client.acquire(request, Duration::from_secs(30)).await.unwrap();
        if got.source() == v1::acquire_vm_response::Source::Warm {
            let total = got.timing.unwrap().total.unwrap();
            seen.record(total.seconds as u64 * 1_000_000_000 + total.nanos as u64).unwrap();
        }
        let release = v1::ReleaseVmRequest { name: got.vm.unwrap().name, ..Default::default() };
        client.vms.clone().release_vm(release).await.unwrap();
    }
    let empty = AcquireVmRequest {
        pool: "pools/empty".to_owned(),
        overflow: v1::pool::Overflow::WarmOnly.into(),
        ..Default::default()
    };
    client.acquire(empty, Duration::from_secs(30)).await.unwrap_err();
    seen
}

#[tokio::test]
async fn every_known_series_is_there_from_zero_and_true_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        state: Some(dir.path().join("state")),
        runtime: Some(dir.path().join("run")),
        ..Config::default()
    };
    config.providers.insert("memory".to_owned(), ProviderConfig::of(ProviderKind::Memory));
    let mut hearth = Hearth::open(config, Levels::detached()).await.unwrap();
    hearth.begin(false).await.unwrap();
    let text = metrics(hearth.admin_address()).await;
    let default = "pool=\"default\"";
    let zero: [(&str, &[&str]); 21] = [
        ("hearth_acquires_total", &[default, "source=\"warm\"", "result=\"ok\""]),
        ("hearth_acquires_total", &[default, "source=\"cold\"", "result=\"ok\""]),
        ("hearth_acquire_duration_seconds_count", &[default, "source=\"warm\""]),
        ("hearth_acquire_stage_duration_seconds_count", &["stage=\"commit\""]),
        ("hearth_restore_failures_total", &["provider=\"memory\"", "reason=\"timeout\""]),
        ("hearth_rename_failures_total", &["reason=\"already_exists\""]),
        ("hearth_leased_vms", &[default]),
        ("hearth_quarantined_vms", &[default]),
        ("hearth_stale_discarded_total", &[default, "reason=\"over_age\""]),
        ("hearth_cold_inflight", &[]),
        ("hearth_cold_rejected_total", &["reason=\"saturated\""]),
        ("hearth_breaker_open", &["template=\"default\""]),
        ("hearth_lease_expired_total", &[]),
        ("hearth_watch_subscribers", &[]),
        ("hearth_orphans_reaped_total", &["kind=\"process\""]),
        ("hearth_journal_append_duration_seconds_count", &[]),
        ("grpc_server_started_total", &["grpc_method=\"AcquireVm\""]),
        ("grpc_server_handled_total", &["grpc_method=\"AcquireVm\"", "grpc_code=\"OK\""]),
        ("grpc_server_handled_total", &["grpc_method=\"AcquireVm\"", "grpc_code=\"NotFound\""]),
        ("grpc_server_handling_seconds_count", &["grpc_method=\"ListPools\""]),
        ("grpc_server_started_total", &["grpc_service=\"unknown\""]),
    ];
    for (name, labels) in zero {
        assert_eq!(value(&text, name, labels), Some(0.0), "{name} {labels:?}");
    }
    for name in ["hearth_warm_vms", "hearth_target_vms", "hearth_restoring_vms"] {
        assert!(value(&text, name, &[default]).is_some(), "{name}");
    }
    assert_eq!(value(&text, "hearth_build_info", &["version="]), Some(1.0));
    assert!(value(&text, "process_resident_memory_bytes", &[]).unwrap() > 0.0);
    for bound in ["0.000025", "0.00035", "0.75", "10"] {
        let label = format!("le=\"{bound}\"");
        let found = value(&text, "hearth_acquire_duration_seconds_bucket", &[&label]);
        assert_eq!(found.is_some(), bound != "0.75", "{bound}");
    }

    let is_warm = async {
        while value(&metrics(hearth.admin_address()).await, "hearth_warm_vms", &[default])
            < Some(1.0)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), is_warm).await.unwrap();
    let address = hearth.grpc_address().to_string();
    let client = hearth_proto::HearthClient::connect(&address).await.unwrap();
    let request = hearth_proto::v1::AcquireVmRequest {
        pool: "pools/default".to_owned(),
        ..Default::default()
    };
    client.acquire(request, std::time::Duration::from_secs(30)).await.unwrap();
    let absent = hearth_proto::v1::GetVmRequest { name: "vms/nope".to_owned() };
    client.vms.clone().get_vm(absent).await.unwrap_err();
    // The call's end is counted when its last frame is taken, a moment after it was sent.
    let counted = async {
        loop {
            let text = metrics(hearth.admin_address()).await;
            let acquired = ["grpc_method=\"AcquireVm\"", "grpc_code=\"OK\""];
            let missed = ["grpc_method=\"GetVm\"", "grpc_code=\"NotFound\""];
            if value(&text, "grpc_server_handled_total", &acquired) == Some(1.0)
                && value(&text, "grpc_server_handled_total", &missed) == Some(1.0)
                && value(&text, "hearth_leased_vms", &[default]) == Some(1.0)
            {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), counted).await.unwrap();

    let pool = v1::Pool { template: "templates/default".to_owned(), ..Default::default() };
    let create = v1::CreatePoolRequest {
        pool_id: "empty".to_owned(),
        pool: Some(pool),
        ..Default::default()
    };
    client.pools.clone().create_pool(create).await.unwrap();
    let before = metrics(hearth.admin_address()).await;
    let warm = ["pool=\"default\"", "source=\"warm\""];
    assert_eq!(value(&before, "hearth_acquire_duration_seconds_count", &warm), Some(1.0));
    let mut seen = work(&client).await;
    // The one acquire of before.
    let first = value(&before, "hearth_acquire_duration_seconds_sum", &warm).unwrap();
    seen.record((first * 1e9) as u64).unwrap();
    let text = metrics(hearth.admin_address()).await;
    listed::check(&text);
    agrees::check(&text, &seen);
    let empty = "pool=\"empty\"";
    let turned_away = ["reason=\"pool_empty\"", "result=\"error\"", empty];
    assert_eq!(value(&text, "hearth_acquires_total", &turned_away), Some(1.0));
    for (name, labels) in [
        ("hearth_time_to_ready_seconds_count", [default, "source=\"warm\""]),
        ("hearth_time_to_ready_seconds_count", [default, "source=\"cold\""]),
        ("hearth_restore_duration_seconds_count", ["provider=\"memory\"", "stage=\"provider\""]),
        ("hearth_restore_duration_seconds_count", ["provider=\"memory\"", "stage=\"probe\""]),
    ] {
        assert!(value(&text, name, &labels).unwrap() > 0.0, "{name} {labels:?}");
    }

    // What has gone is shown no more.
    let gone = v1::DeletePoolRequest { name: "pools/empty".to_owned(), ..Default::default() };
    client.pools.clone().delete_pool(gone).await.unwrap();
    let forgotten = async {
        while metrics(hearth.admin_address()).await.contains(empty) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), forgotten).await.unwrap();
    hearth.end(true).await;
}
