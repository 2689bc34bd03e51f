//! Pages of lists: by name, so that a page stays where it is while things come and go.
//!
//! A token is opaque and says which list it is of, filter included, and the last name of the
//! page before. One of another list is refused, and so is one that was made up.

use std::fmt::Write as _;

use hearth_pool::error::{Error, Violation};
use hearth_pool::requests::Fingerprint;

use crate::status::Refusal;

/// The size of a page when the request does not say.
pub(crate) const DEFAULT_PAGE_SIZE: usize = 50;
/// The largest page.
pub(crate) const MAX_PAGE_SIZE: usize = 1000;

/// Which page of which list.
#[derive(Debug)]
pub(crate) struct Page {
    list: u64,
    size: usize,
    after: Option<String>,
}

impl Page {
    /// The page asked for of the list `kind` (with `filter`).
    ///
    /// # Errors
    /// A field violation for a negative size; `PAGE_TOKEN_INVALID`.
    pub(crate) fn of(
        kind: &str,
        filter: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<Self, Refusal> {
        let list = Fingerprint::default().part(&kind).part(&filter).finish();
        let size = match usize::try_from(page_size) {
            Ok(0) => DEFAULT_PAGE_SIZE,
            Ok(size) => size.min(MAX_PAGE_SIZE),
            Err(_) => {
                let (field, description) = ("page_size".to_owned(), "it is negative".to_owned());
                return Err(Error::InvalidArgument(vec![Violation { field, description }]).into());
            }
        };
        let after = match page_token {
            "" => None,
            token => Some(decode(list, token).ok_or(Refusal::PageToken)?),
        };
        Ok(Self { list, size, after })
    }

    /// Of `all`, which is sorted by `name`, those of this page; and the token of the next.
    pub(crate) fn cut<T>(
        &self,
        all: impl IntoIterator<Item = T>,
        name: impl Fn(&T) -> &str,
    ) -> (Vec<T>, String) {
        let after = self.after.as_deref();
        let mut rest = all.into_iter().filter(|it| after.is_none_or(|after| name(it) > after));
        let page: Vec<T> = rest.by_ref().take(self.size).collect();
        let next = match (rest.next(), page.last()) {
            (Some(_), Some(last)) => encode(self.list, name(last)),
            _ => String::new(),
        };
        (page, next)
    }

    /// As [`Self::cut`], of what is in an order of its own: the place stands in for the name.
    pub(crate) fn cut_in_order<T>(&self, all: Vec<T>) -> (Vec<T>, String) {
        let placed: Vec<_> =
            all.into_iter().enumerate().map(|(place, it)| (format!("{place:010}"), it)).collect();
        let (page, next) = self.cut(placed, |(place, _)| place.as_str());
        (page.into_iter().map(|(_, it)| it).collect(), next)
    }
}

fn encode(list: u64, last: &str) -> String {
    let mut token = format!("{list:016x}");
    for byte in last.bytes() {
        // Writing to a string does not fail.
        let _ = write!(token, "{byte:02x}");
    }
    token
}

fn decode(list: u64, token: &str) -> Option<String> {
    let hex = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(text).map(str::to_owned)
    };
    // Longer than any name makes it.
    if token.len() > 512 || !token.is_ascii() {
        return None;
    }
    let (of, last) = token.split_at_checked(16)?;
    if u64::from_str_radix(&hex(of)?, 16).ok()? != list || last.is_empty() || last.len() % 2 != 0 {
        return None;
    }
    let last = hex(last)?;
    let bytes = (0..last.len()).step_by(2).map(|at| u8::from_str_radix(&last[at..at + 2], 16));
    String::from_utf8(bytes.collect::<Result<_, _>>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("vm-{number:03}")).collect()
    }

    #[test]
    fn pages_join_to_the_whole_list() {
        let all = names(103);
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = Page::of("vms", "f", 10, &token).unwrap();
            let (cut, next) = page.cut(all.clone(), |name| name);
            assert!(!cut.is_empty() && cut.len() <= 10);
            seen.extend(cut);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_page_stays_where_it_is_when_things_go() {
        let all = names(20);
        let (_, next) = Page::of("vms", "", 10, "").unwrap().cut(all.clone(), |name| name);
        // The last of the first page, by which the token goes, is gone.
        let rest: Vec<_> = all.into_iter().filter(|name| name != "vm-009").collect();
        let (page, _) = Page::of("vms", "", 10, &next).unwrap().cut(rest, |name| name);
        assert_eq!(page.first().map(String::as_str), Some("vm-010"));
    }

    #[test]
    fn foreign_tokens_and_nonsense_are_refused() {
        let (_, token) = Page::of("vms", "", 1, "").unwrap().cut(names(2), |name| name);
        assert!(Page::of("vms", "", 1, &token).is_ok());
        assert!(matches!(Page::of("pools", "", 1, &token), Err(Refusal::PageToken)));
        assert!(matches!(Page::of("vms", "state=RUNNING", 1, &token), Err(Refusal::PageToken)));
        let long = "0".repeat(100_000);
        for nonsense in ["x", "é", &token[..20], &token[..17], &long, "+1"] {
            if nonsense != &token[..20] {
                let page = Page::of("vms", "", 1, nonsense);
                assert!(matches!(page, Err(Refusal::PageToken)), "{nonsense}");
            }
        }
        assert!(matches!(Page::of("vms", "", -1, ""), Err(Refusal::Pool(_))));
    }

    #[test]
    fn what_has_an_order_of_its_own_keeps_it() {
        let page = Page::of("snapshots", "", 2, "").unwrap();
        let (first, next) = page.cut_in_order(vec!["z", "a", "m"]);
        assert_eq!(first, ["z", "a"]);
        let page = Page::of("snapshots", "", 2, &next).unwrap();
        assert_eq!(page.cut_in_order(vec!["z", "a", "m"]), (vec!["m"], String::new()));
    }
}
