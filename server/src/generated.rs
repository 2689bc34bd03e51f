//! Tables in the pages of `docs/` that are made from the code, and compared with it. `HEARTH_BLESS=1` writes
//! them anew.

use std::path::Path;

/// The table of this name in `docs/<page>`, between its marks, is `table`, or is made so. Tables of one page are
/// looked at one after the other: each writes all of the page.
pub(crate) fn check(page: &str, name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = std::fs::read_to_string(&path).expect("the page is there");
    let (begin, end) =
        (format!("<!-- {name}: generated, do not edit -->\n"), format!("<!-- end of {name} -->\n"));
    let (before, rest) = text.split_once(&begin).expect("the page has the table's begin");
    let (shown, after) = rest.split_once(&end).expect("the page has the table's end");
    if std::env::var_os("HEARTH_BLESS").is_some() {
        let text = format!("{before}{begin}{table}{end}{after}");
        return std::fs::write(&path, text).expect("it is written");
    }
    assert_eq!(shown, table, "HEARTH_BLESS=1 writes the table anew");
}
