//! What `hearth doctor` looks at for Docker and podman.
//!
//! The engine is asked as the server asks it when it opens a provider; nothing is made on it. One that accepts and
//! does not answer is given up.

use std::path::Path;
use std::sync::Arc;

use hearth_providers::docker::{self, DockerConfig};
use hearth_providers::env::SystemEnv;

use super::Check;
use super::facts::{Facts, PATIENCE, said};

const START: &str = "start the engine (for podman: podman system service), let this user open its \
                     socket (group docker), or say where it is: --socket PATH, and \
                     providers.NAME.socket in the file";
const LIVE_RESTORE: &str =
    "\"live-restore\": true in the engine's daemon.json, and restart the engine";
const STORAGE: &str =
    "overlay2 where the kernel has it: \"storage-driver\" in the engine's daemon.json";

/// Whether the engine answers at `socket`, or at the provider's own, and what it does with
/// containers.
pub(super) fn docker(socket: Option<&Path>) -> Vec<Check> {
    // It carries a state's name, and nothing is made that could.
    let mut config = DockerConfig::new("doctor");
    config.socket = socket.map_or(config.socket, Path::to_owned);
    config.command_timeout = config.command_timeout.min(PATIENCE);
    match docker::ask(config, Arc::new(SystemEnv)) {
        Ok(facts) => judge(&Facts(facts)),
        Err(error) => vec![Check::fail("engine", said(&error), START)],
    }
}

fn judge(facts: &Facts) -> Vec<Check> {
    let engine = format!(
        "{} {}, version {} of the API ({})",
        facts.get("engine"),
        facts.get("version"),
        facts.get("api"),
        facts.get("socket")
    );
    let storage = match facts.get("storage") {
        "vfs" => Check::warn(
            "storage",
            "vfs: each container and each snapshot is a copy of a whole disk",
            STORAGE,
        ),
        driver => Check::ok("storage", driver),
    };
    let live_restore = match facts.get("live_restore") {
        "off" => Check::warn(
            "live-restore",
            "off: containers end with the engine, when it is restarted or upgraded",
            LIVE_RESTORE,
        ),
        other => Check::ok("live-restore", other),
    };
    vec![
        Check::ok("engine", engine),
        Check::ok("runtime", facts.get("runtime")),
        storage,
        live_restore,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    fn facts(live_restore: &str, storage: &str) -> Facts {
        let fact = |name, value: &str| (name, value.to_owned());
        Facts(vec![
            fact("engine", "docker"),
            fact("version", "20.10.24"),
            fact("api", "1.41"),
            fact("socket", "/run/d.sock"),
            fact("runtime", "runc"),
            fact("storage", storage),
            fact("live_restore", live_restore),
        ])
    }

    fn outcomes(facts: &Facts) -> Vec<Outcome> {
        judge(facts).iter().map(|check| check.status).collect()
    }

    #[test]
    fn an_engine_that_is_not_there_says_how_to_get_one() {
        let found = docker(Some(Path::new("/no/such/docker.sock")));
        let [engine] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(engine.status, Outcome::Fail);
        assert!(engine.message.contains("/no/such/docker.sock"), "{engine:?}");
        assert!(engine.remedy.contains("--socket"), "{engine:?}");
    }

    #[test]
    fn containers_that_end_with_their_engine_are_warned_of() {
        use Outcome::{Ok, Warn};
        assert_eq!(outcomes(&facts("off", "overlay2")), [Ok, Ok, Ok, Warn]);
        for fine in ["on", "not needed", "unknown"] {
            assert_eq!(outcomes(&facts(fine, "overlay2")), [Ok; 4], "{fine}");
        }
        let found = judge(&facts("off", "overlay2"));
        assert!(found[0].message.contains("docker 20.10.24, version 1.41"), "{found:?}");
        assert!(found[3].remedy.contains("daemon.json"), "{found:?}");
    }

    #[test]
    fn a_storage_that_copies_everything_is_warned_of() {
        assert_eq!(outcomes(&facts("on", "vfs"))[2], Outcome::Warn);
    }
}
