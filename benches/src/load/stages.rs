//! What the server says that its stages took, read from its metrics before a run and after.
//!
//! Of all its callers, not of this one alone. Quantiles are as fine as the buckets are.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::histograms::{Histograms, parse};

/// How long reading them may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What one stage took, by the server's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Metric and labels.
    pub name: String,
    /// How often.
    pub count: u64,
    /// The mean, in microseconds.
    pub mean_us: f64,
    /// The median, in microseconds, as far as buckets show it.
    pub p50_us: Option<f64>,
    /// The 99th percentile, likewise; absent: longer than the last bound.
    pub p99_us: Option<f64>,
}

/// The histograms of times at `url`, as `http://127.0.0.1:7071/metrics`.
///
/// # Errors
/// When there is no such server, or it does not answer with metrics within 10 s.
pub async fn read(url: &str) -> Result<Histograms, String> {
    let reading = tokio::time::timeout(TIMEOUT, get(url));
    let text = reading.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    let text = text.map_err(|error| format!("{url}: {error}"))?;
    let is_wanted = |name: &str| {
        let is_ours = name.starts_with("hearth_") && name.ends_with("_seconds");
        is_ours || name == "grpc_server_handling_seconds"
    };
    Ok(parse(&text, is_wanted))
}

/// What came to each between two readings; what did not occur is left out.
pub fn between(before: &Histograms, after: &Histograms) -> Vec<Stage> {
    let since = after.iter().filter_map(|(name, after)| {
        let came = match before.get(name) {
            Some(before) => after.since(before),
            None => after.clone(),
        };
        let micros = |seconds: f64| seconds * 1e6;
        Some(Stage {
            name: name.clone(),
            count: came.count as u64,
            mean_us: micros(came.mean()?),
            p50_us: came.at(0.5).map(micros),
            p99_us: came.at(0.99).map(micros),
        })
    });
    since.collect()
}

/// A line each; approximations are marked as such.
pub fn table(stages: &[Stage]) -> String {
    let head = "in the server, of all callers";
    let width = stages.iter().map(|it| it.name.len()).fold(head.len(), usize::max);
    let mut text =
        format!("{head:<width$} {:>9} {:>10} {:>10} {:>10}\n", "count", "mean", "~p50", "~p99");
    let time = |micros: f64| format!("{:.1?}", Duration::from_secs_f64(micros.max(0.0) / 1e6));
    let about = |micros: Option<f64>| micros.map_or("-".to_owned(), time);
    for Stage { name, count, mean_us, p50_us, p99_us } in stages {
        let (mean, p50, p99) = (time(*mean_us), about(*p50_us), about(*p99_us));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<width$} {count:>9} {mean:>10} {p50:>10} {p99:>10}");
    }
    text
}

async fn get(url: &str) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|error| format!("no URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("metrics are read by http://".to_owned());
    }
    let authority = uri.authority().ok_or("no host")?;
    let (host, port) = (authority.host(), authority.port_u16().unwrap_or(80));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect((host, port)).await.map_err(|it| text(&it))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|it| text(&it))?;
    let path = uri.path_and_query().map_or("/", |it| it.as_str());
    let request = Request::get(path).header(HOST, authority.as_str());
    let request = request.body(Empty::<Bytes>::new()).map_err(|it| text(&it))?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(|it| text(&it))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("answers {status}"));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        let bytes = body.map_err(|it| text(&it))?.to_bytes();
        String::from_utf8(bytes.to_vec()).map_err(|it| text(&it))
    };
    // The connection is driven as long as the answer is waited for.
    tokio::pin!(asking, connection);
    let mut is_open = true;
    loop {
        tokio::select! {
            answer = &mut asking => return answer,
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with this, and answers what was asked.
    async fn serve(listener: &TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        let bytes = stream.read(&mut asked).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked[..bytes]).into_owned()
    }

    #[tokio::test]
    async fn metrics_are_read_over_http_and_what_failed_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let body = "hearth_a_seconds_count 3\ngrpc_server_handling_seconds_count 4\n\
                    hearth_b_bytes_count 5\n";
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        let answer = format!("{head}{body}");
        let (histograms, asked) = tokio::join!(read(&url), serve(&listener, &answer));
        assert!(asked.starts_with("GET /metrics HTTP/1.1\r\n"), "{asked}");
        let histograms = histograms.unwrap();
        assert_eq!(histograms.len(), 2, "{histograms:?}");
        assert!((histograms["hearth_a_seconds"].count - 3.0).abs() < 1e-9);
        let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let (error, _) = tokio::join!(read(&url), serve(&listener, missing));
        assert!(error.unwrap_err().contains("404"));
        drop(listener);
        for wrong in [url.as_str(), "https://127.0.0.1/metrics", "nowhere", ""] {
            assert!(read(wrong).await.is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_occurred_between_is_shown() {
        let text = |count: u32| {
            format!(
                "hearth_a_seconds_bucket{{le=\"0.1\"}} {count}\n\
                 hearth_a_seconds_bucket{{le=\"+Inf\"}} {count}\n\
                 hearth_a_seconds_sum {}\nhearth_a_seconds_count {count}\n\
                 hearth_idle_seconds_count 7\n",
                f64::from(count) / 20.0
            )
        };
        let (before, after) = (parse(&text(100), |_| true), parse(&text(300), |_| true));
        let stages = between(&before, &after);
        assert_eq!(stages.len(), 1, "{stages:?}");
        assert_eq!((stages[0].name.as_str(), stages[0].count), ("hearth_a_seconds", 200));
        assert!((stages[0].mean_us - 50_000.0).abs() < 1e-6);
        assert!((stages[0].p50_us.unwrap() - 50_000.0).abs() < 1e-6);
        let table = table(&stages);
        assert!(table.lines().count() == 2 && table.contains("50.0ms"), "{table}");
    }
}
