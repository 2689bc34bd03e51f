use super::*;

fn host(host: &str) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
    is_own_name(&headers)
}

#[test]
fn a_name_that_may_be_anothers_is_not_ours() {
    for own in ["127.0.0.1", "127.0.0.1:7071", "localhost", "LocalHost:7071", "[::1]:7071", "[::1]"]
    {
        assert!(host(own), "{own}");
    }
    for foreign in [
        "",
        "evil.example",
        "evil.example:7071",
        "localhost.evil.example",
        "127.0.0.1.nip.example",
        "[evil]",
    ] {
        assert!(!host(foreign), "{foreign}");
    }
    assert!(!is_own_name(&HeaderMap::new()), "without one");
}

#[test]
fn a_query_is_decoded_and_bounded() {
    let parse = |text: &str| Query::parse(text).ok();
    let query = parse("find=a+b%20%C3%A9&after=x%20y&uid=1").unwrap();
    assert_eq!((query.find.as_str(), query.after.as_str()), ("a b é", "x y"));
    assert_eq!(query.uid, "1");
    assert_eq!(parse(""), Some(Query::default()));
    for wrong in ["find=%", "find=%4", "find=%zz", "find=%ff", "other=1"] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
    assert_eq!(parse(&format!("find={}", "x".repeat(MAX_FIND_BYTES + 1))), None);
}
