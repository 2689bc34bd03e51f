//! Rows on the wire: what is no request, and what looks odd and is one.

use serde_json::json;

use crate::row::{Api, Asked, Request, Row, get, put, row, row_of};

pub(crate) fn rows() -> Vec<Row> {
    let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\n\r\n").into_bytes();
    let text = |text: &str| text.as_bytes().to_vec();
    let long = "x".repeat(1100);
    let empty = |method, path| Request { method, path, body: None };
    vec![
        bytes("a request of HTTP/1.0", text("GET / HTTP/1.0\r\n\r\n"), 1),
        bytes("a request that asks for a close", head("Connection: close\r\n"), 1),
        bytes("a request with a host", head("Host: localhost\r\n"), 1),
        bytes(
            "a request with an absolute target",
            line("GET http://localhost/version HTTP/1.1"),
            1,
        ),
        bytes("a target without a slash", line("GET version HTTP/1.1"), 1),
        bytes("a target with a slash at its end", line("GET /version/ HTTP/1.1"), 1),
        bytes("a target with a query", line("GET /version?a=b HTTP/1.1"), 1),
        bytes("two requests at once", [head(""), line("GET /version HTTP/1.1")].concat(), 2),
        bytes("a request and then nonsense at once", [head(""), text("nonsense\r\n")].concat(), 1),
        bytes(
            "a header in small letters",
            text("PUT /entropy HTTP/1.1\r\ncontent-length:2\r\n\r\n{}"),
            1,
        ),
        bytes(
            "a body that is chunked",
            text("PUT /entropy HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
            1,
        ),
        bytes(
            "a body that waits for the go-ahead",
            text("PUT /entropy HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}"),
            2,
        ),
        bytes(
            "a body of some other type",
            text("PUT /entropy HTTP/1.1\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n{}"),
            1,
        ),
        bytes(
            "a GET with a body",
            head("Content-Length: 2\r\n").into_iter().chain(*b"{}").collect(),
            1,
        ),
        bytes("a POST", line("POST / HTTP/1.1"), 1),
        bytes("a HEAD", line("HEAD / HTTP/1.1"), 1),
        bytes("an OPTIONS", line("OPTIONS / HTTP/1.1"), 1),
        bytes("a method in small letters", line("get / HTTP/1.1"), 1),
        bytes("another version of HTTP", line("GET / HTTP/2.0"), 1),
        bytes("a line that is no request", line("nonsense"), 1),
        bytes("a header without a colon", head("nonsense\r\n"), 1),
        bytes("a length that is no number", head("Content-Length: many\r\n"), 1),
        bytes("an encoding that forbids identity", head("Accept-Encoding: identity;q=0\r\n"), 1),
        bytes(
            "a request line that is too long",
            format!("GET /{long} HTTP/1.1\r\n\r\n").into_bytes(),
            1,
        ),
        bytes("a header line that is too long", head(&format!("X: {long}\r\n")), 1),
        bytes(
            "a body that is too long, by its length",
            text("PUT /mmds HTTP/1.1\r\nContent-Length: 51201\r\n\r\n"),
            1,
        ),
        row("a PUT without a body", vec![], empty("PUT", "/entropy")),
        row("a PATCH without a body", vec![], empty("PATCH", "/vm")),
        row("a DELETE of nothing", vec![], empty("DELETE", "/")),
        row(
            "a body as long as may be",
            vec![],
            put("/nothing", json!({ "a": "x".repeat(51_190) })),
        ),
        row("a GET of what can only be put", vec![], get("/boot-source")),
        row_of("the eleventh connection", connections(11)),
        row_of("the tenth connection", connections(10)),
    ]
}

fn bytes(name: &'static str, bytes: Vec<u8>, answers: usize) -> Row {
    row_of(name, Api::new(Vec::new(), Asked::Bytes(bytes, answers)))
}

fn connections(count: usize) -> Api {
    Api::new(Vec::new(), Asked::Connections(count))
}
