//! Collectors that are not there, or do not answer: calls go on, spans are dropped and counted, hearth ends.

use tokio::net::TcpListener;

use crate::cases::from;
use crate::collector::Collector;
use crate::hearth::{Hearth, Host, Outcome};
use crate::running::cases;

cases! {
    false a_collector_that_is_not_there_costs_spans_alone,
    false a_collector_that_hangs_costs_spans_alone,
    false a_collector_that_comes_late_gets_what_is_made_then,
}

const FAILED: &str = "hearth_spans_dropped_total{reason=\"export_failed\"}";
const FULL: &str = "hearth_spans_dropped_total{reason=\"queue_full\"}";

async fn work(hearth: &Hearth) -> Outcome {
    for _ in 0..20 {
        let vm = hearth.acquire(from("default")).await?.vm.ok_or("no vm")?;
        hearth.client.release(&vm).await?;
    }
    Ok(())
}

async fn is_counted(hearth: &Hearth, series: &str) -> Outcome {
    hearth
        .until("what is dropped is counted", async || hearth.metric(series).await > Some(0.0))
        .await
}

async fn a_collector_that_is_not_there_costs_spans_alone() -> Outcome {
    let gone = Collector::start()?.settings();
    let host = Host::configured("memory", 2, |_| Ok(gone))?;
    let hearth = host.start().await?;
    work(&hearth).await?;
    is_counted(&hearth, FAILED).await?;
    work(&hearth).await?;
    assert!(hearth.terminate()?.success(), "{}", host.log_tail());
    assert_eq!(host.log_lines("spans cannot be exported").len(), 1, "{}", host.log_tail());
    Ok(())
}

async fn a_collector_that_hangs_costs_spans_alone() -> Outcome {
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let address = silent.local_addr()?;
    let settings = format!(
        "[telemetry]\nendpoint = \"http://{address}\"\ntimeout = \"500ms\"\nmax_queued = 8\n"
    );
    let host = Host::configured("memory", 2, |_| Ok(settings))?;
    let hearth = host.start().await?;
    work(&hearth).await?;
    is_counted(&hearth, FAILED).await?;
    // Spans are gathered for a while between two messages: only those that end during one can find no place.
    let calls = async || work(&hearth).await.is_ok() && hearth.metric(FULL).await > Some(0.0);
    hearth.until("a span finds no place", calls).await?;
    assert!(hearth.terminate()?.success(), "{}", host.log_tail());
    Ok(())
}

async fn a_collector_that_comes_late_gets_what_is_made_then() -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    drop(listener);
    let settings = format!("[telemetry]\nendpoint = \"http://{address}\"\n");
    let host = Host::configured("memory", 2, |_| Ok(settings))?;
    let hearth = host.start().await?;
    work(&hearth).await?;
    is_counted(&hearth, FAILED).await?;
    let collector = Collector::start_at(address)?;
    let calls = async || {
        let worked = work(&hearth).await.is_ok();
        worked && !collector.spans().is_empty()
    };
    hearth.until("spans come", calls).await?;
    // Said when their answer is there.
    let is_said = async || host.log_lines("spans are exported again").len() == 1;
    hearth.until("it is said", is_said).await
}
