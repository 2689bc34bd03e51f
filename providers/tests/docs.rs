//! `docs/providers.md` shows what the code says: its table is made here and compared.
//! `HEARTH_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use hearth_providers::Capabilities;

const BEGIN: &str = "<!-- capabilities: generated, do not edit -->\n";
const END: &str = "<!-- end of capabilities -->\n";

#[test]
fn the_capability_table_is_the_codes() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/providers.md");
    let text = std::fs::read_to_string(&page).expect("docs/providers.md is there");
    let (before, rest) = text.split_once(BEGIN).expect("the page has the table's begin");
    let (shown, after) = rest.split_once(END).expect("the page has the table's end");
    let table = table(&providers());
    if std::env::var_os("HEARTH_BLESS").is_some() {
        let page_now = format!("{before}{BEGIN}{table}{END}{after}");
        std::fs::write(&page, page_now).expect("the page can be written");
        return;
    }
    assert_eq!(shown, table, "HEARTH_BLESS=1 writes the table anew");
}

fn providers() -> Vec<(&'static str, Capabilities)> {
    vec![
        ("memory", hearth_providers::memory::CAPABILITIES),
        #[cfg(all(feature = "firecracker", target_os = "linux"))]
        ("firecracker", hearth_providers::firecracker::CAPABILITIES),
        #[cfg(all(feature = "qemu", target_os = "linux"))]
        ("qemu", hearth_providers::qemu::CAPABILITIES),
        #[cfg(all(feature = "docker", target_os = "linux"))]
        ("docker", hearth_providers::docker::CAPABILITIES),
        #[cfg(feature = "apple-container")]
        ("apple-container", hearth_providers::apple_container::CAPABILITIES),
        #[cfg(feature = "smolvm")]
        ("smolvm", hearth_providers::smolvm::CAPABILITIES),
    ]
}

fn table(providers: &[(&str, Capabilities)]) -> String {
    let rows: Vec<_> = providers
        .iter()
        .map(|(_, capabilities)| serde_json::to_value(capabilities).expect("it is plain data"))
        .collect();
    let names: Vec<_> = providers.iter().map(|(name, _)| *name).collect();
    let mut table = format!("| capability | {} |\n", names.join(" | "));
    let _ = writeln!(table, "|---|{}", "---|".repeat(names.len()));
    let fields = rows.first().and_then(|row| row.as_object()).expect("it has fields");
    for field in fields.keys() {
        let cells = rows.iter().map(|row| match &row[field] {
            serde_json::Value::Bool(true) => "yes".to_owned(),
            serde_json::Value::Bool(false) => "no".to_owned(),
            serde_json::Value::String(word) => word.replace('_', " "),
            other => other.to_string(),
        });
        let cells: Vec<_> = cells.collect();
        let _ = writeln!(table, "| {} | {} |", field.replace('_', " "), cells.join(" | "));
    }
    table
}
