//! What is read and nothing done: names, filters, tokens, the configuration, and who there is.

use std::path::Path;
use std::time::Duration;

use hearth_pool::fuzzing::pieces;
use hearth_pool::ids::{ArtifactId, PoolId, TemplateId};
use hearth_proto::names::{self, Collection};

use crate::auth::identities::Known;
use crate::auth::token::TokenHash;
use crate::check::Fields;
use crate::config::{self, Config, Flags};
use crate::filter::Filter;
use crate::paging::Page;

const COLLECTIONS: [Collection; 5] =
    [names::VMS, names::POOLS, names::TEMPLATES, names::ARTIFACTS, names::OPERATIONS];

/// Resource names, ids, filters and page tokens. What is taken is its own canonical text.
pub(super) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for collection in COLLECTIONS {
        if let Ok(id) = collection.id(text) {
            assert_eq!(collection.name(id), text);
            assert!(!id.contains(['/', '\0']) && id != "." && id != "..", "{id:?}");
        }
    }
    if let Ok((vm, snapshot)) = names::parse_snapshot(text) {
        assert_eq!(names::snapshot_name(vm, snapshot), text);
    }
    if let Ok((template, Some(generation))) = names::parse_template(text) {
        assert!(generation > 0, "{text:?}");
        assert_eq!(
            names::parse_template(&names::generation_name(template, generation)).ok(),
            Some((template, Some(generation)))
        );
    }
    let mut fields = Fields::default();
    let ids = [
        fields.id("id", text, PoolId::parse).map(|id| id.to_string()),
        fields.id("id", text, TemplateId::parse).map(|id| id.to_string()),
        fields.id("id", text, ArtifactId::parse).map(|id| id.to_string()),
        fields.new_vm_id("id", text).map(|id| id.to_string()),
    ];
    for id in ids.into_iter().flatten() {
        assert!(hearth_providers::id::check_id(&id).is_ok() && id == text, "{id:?}");
    }
    fields.uid("uid", text);
    if let Some(id) = fields.request_id(text) {
        assert_eq!(fields.request_id(id.as_str()), Some(id), "it has one spelling");
    }
    for fields in crate::grpc::FILTERS {
        if let Ok(filter) = Filter::parse(text, fields) {
            filter.matches(|_| Some(std::borrow::Cow::Borrowed("x")));
        }
    }
    if let Ok(page) = Page::of("vms", "", 2, text) {
        let (cut, next) = page.cut(["a", "b", "c", "d"], |name| name);
        assert!(cut.len() <= 2);
        assert!(next.is_empty() || Page::of("vms", "", 2, &next).is_ok());
    }
    for list in [0, crate::watch::token::list_id("vms", "", None)] {
        if let Some(token) = crate::watch::token::Token::decode(list, text) {
            let again = crate::watch::token::Token::decode(list, &token.encode(list));
            assert_eq!(again, Some(token));
        }
    }
}

/// A configuration: the file first, then variables as `NAME=value`. What is taken can be written down,
/// and is then the same.
pub(super) fn config(bytes: &[u8]) {
    let pieces = pieces(bytes);
    let mut texts = pieces.iter().filter_map(|piece| std::str::from_utf8(piece).ok());
    let Some(file) = texts.next() else { return };
    let split =
        |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let flags = Flags { insecure: true, ..Flags::default() };
    let Ok(loaded) = config::load_text(Some(("a file", file)), texts.filter_map(split), &flags)
    else {
        return;
    };
    let config = loaded.config;
    let limits = config.limits.to_pool();
    let _ = limits.places();
    let (pool, template) =
        (PoolId::parse("p").expect("an id"), TemplateId::parse("t").expect("an id"));
    let _ = crate::furnish::pool_config(&config.default_pool, pool, template, 1);
    let written = toml::to_string(&config).expect("a configuration can be written");
    let again = config::load_text(Some(("what was written", &written)), [], &flags);
    let again: Config = again.expect("what was written is a configuration").config;
    // What is unset and has a value chosen for it is set from then on.
    let chosen = Config { default_provider: again.default_provider.clone(), ..config };
    assert_eq!(again, chosen);
}

/// The file of identities, the file of keys that it names, and a token.
pub(super) fn auth(bytes: &[u8]) {
    let pieces = pieces(bytes);
    let [file, keys, token, ..] = pieces.as_slice() else { return };
    let read = Known::read(file, Path::new("auth.toml"), |_| Ok(keys.to_vec()));
    let Ok(known) = read else { return };
    let now = Duration::from_secs(1_800_000_000);
    let found = known.by_token(token, now);
    if let Ok(identity) = &found {
        let text = String::from_utf8_lossy(file);
        let is_static = text.to_ascii_lowercase().contains(&TokenHash::of(token).to_string());
        assert!(is_static || is_signed_by_a_key_pair(token), "{} is let in", identity.name);
    }
    let again = known.by_token(token, now);
    assert_eq!(found.is_ok(), again.is_ok(), "what is remembered is no other answer");
}

/// It says of itself that it was signed, and not with what everybody knows.
fn is_signed_by_a_key_pair(token: &[u8]) -> bool {
    use jsonwebtoken::AlgorithmFamily;
    let header = jsonwebtoken::decode_header(token);
    header.is_ok_and(|header| header.alg.family() != AlgorithmFamily::Hmac)
}
