//! The page of the admin port in a headless Chromium: a real server on the memory provider, and a browser that
//! clicks, types and looks.
//!
//! Without Chromium or its driver the cases are ignored with the reason, or fail when `HEARTH_REQUIRE` names
//! `chromium`. What the page looks like is left in `target/page`, to be looked at.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

mod browser;
#[path = "../cli/hearth.rs"]
#[allow(dead_code, reason = "the command line's cases need more of it")]
mod hearth;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use browser::Browser;
use hearth::Server;
use hearth_server::auth::token::TokenHash;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Keys that have no character.
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
const DOWN: &str = "\u{e015}";

/// A label that would do something if it were markup.
const MARKUP: &str =
    "note=<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>";

/// Keeps a picture in `target/page`.
fn keep(browser: &Browser, name: &str) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("page");
    std::fs::create_dir_all(&dir).unwrap();
    let file = std::fs::File::create(dir.join(name)).unwrap();
    let mut decode =
        Command::new("base64").arg("--decode").stdin(Stdio::piped()).stdout(file).spawn().unwrap();
    let picture = browser.picture();
    std::io::Write::write_all(&mut decode.stdin.take().unwrap(), picture.as_bytes()).unwrap();
    assert!(decode.wait().unwrap().success());
    assert!(std::fs::read(dir.join(name)).unwrap().starts_with(b"\x89PNG"), "{name}");
}

/// The rows that are shown have this text.
fn rows(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('[role=tabpanel]:not([hidden]) tbody tr')]\
         .some((row) => row.innerText.includes({text:?}))"
    )
}

fn pools_vms_consoles_and_events_are_shown() {
    let server = Server::start(4);
    // A restored one goes on silently; one that boots says so on its console.
    server.ok(&["vms", "create", "mine", "--label", MARKUP]);
    server.ok(&["vms", "start", "mine"]);
    server.ok(&["acquire", "--name", "other"]);
    let browser = Browser::open(server.admin());
    browser.appear("light", 1280);
    browser.until(&rows("default"));
    let pool = browser.run("return document.querySelector('#pools tbody tr').innerText");
    let pool = pool.as_str().unwrap();
    assert!(pool.contains("100.0 %") || pool.contains("100.00 %"), "hits of the last hour: {pool}");
    browser.until("document.querySelector('#live').textContent === 'live'");
    keep(&browser, "pools-light.png");

    // By keys alone: the VMs, the one that is looked for, its console.
    browser.press(&format!("2/mine{ENTER}"));
    browser.until("document.activeElement.dataset.key !== undefined");
    browser.press(ENTER);
    browser.until("document.querySelector('#console')?.textContent.includes('READY')");
    let shown = browser.run("return document.querySelector('#detail').innerText");
    let (_, value) = MARKUP.split_once('=').unwrap();
    assert!(shown.as_str().unwrap().contains(value), "markup is a text: {shown}");
    let made =
        "return document.querySelectorAll('#detail img, #detail script, section img').length";
    assert_eq!(browser.run(made), 0);
    assert_eq!(browser.run("return document.title"), "Hearth");
    keep(&browser, "vm-light.png");
    browser.press(ESCAPE);
    browser.until("!document.querySelector('#detail').open");

    // Rows by keys: down and up, and neither beyond the ends.
    // What was looked for before is typed over.
    browser.press("/warm");
    browser.until(&format!("!({})", rows("mine")));
    browser.press(DOWN);
    let focused = "[...document.querySelectorAll('#vms tbody tr')].indexOf(document.activeElement)";
    browser.until(&format!("{focused} === 0"));
    browser.press("jj");
    browser.until(&format!("{focused} === 2"));
    browser.press("kkkk");
    browser.until(&format!("{focused} === 0"));
    browser.press("?");
    browser.until("document.querySelector('#help').open");
    browser.press(ESCAPE);
    browser.until("!document.querySelector('#help').open");

    // Nothing stays hidden: neither by what was looked for elsewhere, nor once the field is left by Esc.
    browser.press("1");
    browser.until(&rows("default"));
    browser.press("2/nowhere");
    browser.until("document.querySelector('#vms').innerText.includes('has “nowhere”')");
    browser.press(ESCAPE);
    browser.until(&rows("mine"));

    // What happens is told at once.
    browser.click("#tab-events");
    server.ok(&["acquire", "--name", "later"]);
    browser.until(&rows("later"));

    browser.appear("dark", 1280);
    keep(&browser, "events-dark.png");
    browser.click("#tab-pools");
    browser.until(&rows("default"));
    keep(&browser, "pools-dark.png");
    browser.click("#tab-server");
    browser.until(&rows("memory"));
    // What the doctor says of the machine.
    browser.until(&rows("open-files"));
    keep(&browser, "server-dark.png");
    browser.click("#tab-templates");
    browser.until(&rows("READY"));
    // On a telephone nothing is beyond the edge.
    browser.appear("light", 360);
    browser.click("#tab-pools");
    browser.until(&rows("default"));
    let beyond =
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.run(beyond), 0, "pixels beyond the edge");
    keep(&browser, "pools-narrow.png");
    // Of a pool the reason for its target is seen first, however long the rest is.
    browser.press(&format!("j{ENTER}"));
    browser.until("document.activeElement.id === 'detail-title'");
    assert_eq!(browser.run("return document.querySelector('#detail').scrollTop"), 0);
    keep(&browser, "pool-narrow.png");
    assert_eq!(browser.log(), Vec::<serde_json::Value>::new(), "the console is quiet");
}

fn without_an_operators_token_nothing_is_shown() {
    let auth = format!(
        "[identities.root]\ntenant = \"ops\"\nroles = [\"operator\"]\ntokens = [\"{}\"]\n\
         [tenants.alice]\npools = [\"default\"]\n\
         [identities.alice]\ntenant = \"alice\"\nroles = [\"tenant\"]\ntokens = [\"{}\"]\n",
        TokenHash::of(b"root-token"),
        TokenHash::of(b"alice-token")
    );
    let config = "[auth]\nfile = \"auth.toml\"\n".to_owned();
    let server = Server::start_with(&[("hearth.toml", config), ("auth.toml", auth)]);
    let browser = Browser::open(server.admin());
    browser.until("document.activeElement.id === 'token'");
    assert_eq!(browser.log(), Vec::<serde_json::Value>::new(), "nothing was asked for in vain");
    browser.press(&format!("alice-token{ENTER}"));
    browser.until("document.querySelector('#sign-in-error').textContent.includes('operator')");
    let is_blank = "document.querySelector('#main').hidden && !document.querySelector('td') \
                    && sessionStorage.getItem('token') === null";
    browser.until(is_blank);
    keep(&browser, "token-light.png");
    browser.press(&format!("root-token{ENTER}"));
    browser.until(&rows("default"));
    browser.until("document.querySelector('#live').textContent === 'live'");
    let kept = browser.run("return JSON.stringify(localStorage) + document.cookie + location.href");
    assert!(!kept.as_str().unwrap().contains("root-token"), "{kept}");
    browser.click("#forget");
    browser.until(is_blank);
}

/// The time that these take is not asserted: it is printed, and a page that never comes fails.
fn ten_thousand_vms_are_listed_page_by_page() {
    let config = "[default_pool]\ndepth = 10000\n[limits]\nmax_parallel_restores = 64\n".to_owned();
    let server = Server::start_with(&[("hearth.toml", config)]);
    server.ok(&["pools", "wait", "default", "--warm", "10000", "--timeout", "10m"]);
    server.ok(&["acquire", "--name", "needle"]);
    let browser = Browser::open(server.admin());
    browser.until(&rows("default"));
    browser.press("2");
    browser.until("document.querySelectorAll('#vms tbody tr').length === 200");
    let first = browser.run("return document.querySelector('#vms tbody tr').dataset.key");
    browser.press("n");
    browser.until(&format!("document.querySelector('#vms tbody tr').dataset.key !== {first}"));
    assert_eq!(browser.run("return document.querySelectorAll('#vms tbody tr').length"), 200);
    browser.press("/needle");
    browser.until(&rows("needle"));
    browser.until("document.querySelector('#found').textContent.startsWith('1 of 10')");
    let took = "return performance.getEntriesByType('resource')\
                .filter((it) => it.name.includes('/page/vms')).map((it) => Math.round(it.duration))";
    println!("milliseconds of each answer with VMs: {}", browser.run(took));
    assert_eq!(browser.log(), Vec::<serde_json::Value>::new());
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing =
        if arguments.list { Some("it was not asked for".to_owned()) } else { Browser::missing() };
    let required = std::env::var("HEARTH_REQUIRE")
        .is_ok_and(|names| names.split([',', ' ']).any(|name| name == "chromium"));
    let cases: [(&str, fn()); 3] = [
        ("pools_vms_consoles_and_events_are_shown", pools_vms_consoles_and_events_are_shown),
        (
            "without_an_operators_token_nothing_is_shown",
            without_an_operators_token_nothing_is_shown,
        ),
        ("ten_thousand_vms_are_listed_page_by_page", ten_thousand_vms_are_listed_page_by_page),
    ];
    let trials = cases.map(|(name, case)| {
        let missing = missing.clone();
        Trial::ignorable_test(name, move || match missing {
            None => {
                case();
                Ok(Completion::Completed)
            }
            Some(missing) if required => {
                Err(Failed::from(format!("HEARTH_REQUIRE names it: {missing}")))
            }
            Some(missing) => Ok(Completion::ignored_with(missing)),
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}
