//! The program `firecracker`: its command line, and its life until the API is served.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::arguments::{Arguments, Kind, Known, Refused, check_instance_id, missing};
use super::console::Console;
use super::installation::Installation;
use super::server;
use super::settings::BeforeSocket;
use super::state_file::{self, Unread};
use super::vmm::Vmm;

const MAX_BODY_BYTES: usize = 51_200;

const BAD_CONFIGURATION: i32 = 152;
const BAD_ARGUMENTS: i32 = 153;

const KNOWN: [Known; 23] = [
    value("api-sock"),
    flag("boot-timer"),
    value("config-file"),
    value("describe-snapshot"),
    flag("enable-pci"),
    value("http-api-max-payload-size"),
    value("id"),
    value("level"),
    value("log-path"),
    value("metadata"),
    value("metrics-path"),
    value("mmds-size-limit"),
    value("module"),
    flag("no-api"),
    flag("no-seccomp"),
    value("parent-cpu-time-us"),
    value("seccomp-filter"),
    flag("show-level"),
    flag("show-log-origin"),
    flag("snapshot-version"),
    value("start-time-cpu-us"),
    value("start-time-us"),
    flag("version"),
];

const fn value(name: &'static str) -> Known {
    Known { name, kind: Kind::Value }
}

const fn flag(name: &'static str) -> Known {
    Known { name, kind: Kind::Flag }
}

/// Runs the program; the answer is its exit status.
pub(super) fn run(installation: Installation, line: &[String]) -> i32 {
    let mut console = Console::new("anonymous-instance");
    let arguments = Arguments::parse(line, &KNOWN).and_then(|arguments| {
        match arguments.has("no-api") && !arguments.has("config-file") {
            true => Err(missing("config-file")),
            false => Ok(arguments),
        }
    });
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(Refused { name, argument, words }) => {
            let hint = r"\n\nFor more information try --help.";
            console.log("main", &format!("Arguments parsing error: {words} {hint}"));
            return fail(&console, BAD_ARGUMENTS, &format!("ParseArguments({name}({argument:?}))"));
        }
    };
    let settings = installation.settings();
    if arguments.has("help") || arguments.has("version") {
        println!("Firecracker v{}\n", settings.version);
        return succeed(&console);
    }
    if arguments.has("snapshot-version") {
        println!("v{}", settings.snapshot_format());
        return succeed(&console);
    }
    if let Some(path) = arguments.value("describe-snapshot") {
        return describe(&console, path.as_ref(), settings.snapshot_format());
    }
    let id = arguments.value("id").unwrap_or("anonymous-instance");
    if let Err((offence, _)) = check_instance_id(id) {
        panic!("Invalid instance ID: {offence}");
    }
    console = Console::new(id);
    if let Some(level) = arguments.value("level")
        && super::bodies::Level::try_from(level.to_owned()).is_err()
    {
        let said = format!("InvalidLogLevel(LevelFilterFromStrError({level:?}))");
        return fail(&console, BAD_CONFIGURATION, &said);
    }
    if let Some(path) = arguments.value("log-path")
        && console.log_to(path.as_ref()).is_err()
    {
        return fail(&console, 1, "LoggerInitialization");
    }
    console.log("main", &format!("Running Firecracker v{}", settings.version));
    if let Some(path) = arguments.value("config-file") {
        std::fs::read(path).expect("Unable to open or read from the configuration file");
    }
    let bytes = |name: &str| arguments.value(name).map(|text| text.parse().expect(name));
    let max_body_bytes = bytes("http-api-max-payload-size").unwrap_or(MAX_BODY_BYTES);
    let max_mmds_bytes = bytes("mmds-size-limit").unwrap_or(max_body_bytes);
    match settings.before_socket {
        Some(BeforeSocket::Exit { code }) => return fail(&console, code, "BeforeSocket"),
        Some(BeforeSocket::HangForMillis(millis)) => {
            std::thread::sleep(Duration::from_millis(millis));
        }
        None => {}
    }
    let path = arguments.value("api-sock").unwrap_or("/run/firecracker.socket");
    let listener = match UnixListener::bind(path) {
        Ok(listener) => listener,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            return fail(&console, 1, &format!("RunWithApi(FailedToBindSocket({path:?}))"));
        }
        Err(error) => {
            let said = format!("RunWithApi(FailedToBindAndRunHttpServer(IOError({error:?})))");
            return fail(&console, 1, &said);
        }
    };
    console.log("main", &format!("Listening on API socket ({path:?})."));
    let vmm = Vmm::new(Arc::new(installation), Arc::new(console), id, max_mmds_bytes);
    server::serve(&listener, vmm, max_body_bytes)
}

/// Prints the format of a state file.
fn describe(console: &Console, path: &Path, format: &str) -> i32 {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            return fail(console, 1, &format!("PrintSnapshotDataFormat(OpenSnapshot({error:?}))"));
        }
    };
    match state_file::version(&bytes, format) {
        Ok(version) => {
            println!("v{version}");
            succeed(console)
        }
        Err(unread) => {
            let reason = match unread {
                Unread::TooShort => {
                    r#"Io(Custom { kind: UnexpectedEof, error: "File too short to contain CRC" })"#
                }
                Unread::Undecodable => "Bitcode(Error(()))",
            };
            let said = format!("PrintSnapshotDataFormat(SnapshotVersion({reason}))");
            fail(console, 1, &said)
        }
    }
}

fn succeed(console: &Console) -> i32 {
    console.log("main", "Firecracker exiting successfully. exit_code=0");
    0
}

fn fail(console: &Console, code: i32, said: &str) -> i32 {
    eprintln!("Error: {said}");
    console.log("main", &format!("Firecracker exiting with error. exit_code={code}"));
    code
}
