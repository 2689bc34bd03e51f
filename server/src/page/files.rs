//! The files of the page: in the binary, and the same for everybody.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

use crate::admin::{Body, full};

/// A file.
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

static FILES: [File; 4] = [
    File { path: "/", kind: HTML, text: include_str!("index.html") },
    File { path: "/page/page.css", kind: CSS, text: include_str!("page.css") },
    File { path: "/page/page.js", kind: JS, text: include_str!("page.js") },
    File { path: "/page/icon.svg", kind: SVG, text: include_str!("icon.svg") },
];

/// Changes with the files.
static ETAGS: LazyLock<[HeaderValue; FILES.len()]> = LazyLock::new(|| {
    FILES.each_ref().map(|file| {
        let hash = Sha256::digest(file.text.as_bytes());
        let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::try_from(format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""))
    })
});

/// The file at `path`, or that it has not changed for whoever sent `headers`.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let at = FILES.iter().position(|file| file.path == path)?;
    let (file, etag) = (&FILES[at], &ETAGS[at]);
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag);
    let text = if is_known { Bytes::new() } else { Bytes::from_static(file.text.as_bytes()) };
    let mut answer = Response::new(full(text));
    if is_known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    headers.insert(header::ETAG, etag.clone());
    // It is asked for again each time, so that a new server has its own page.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(answer)
}
