//! The steps of a restore that each provider's spans show, where somebody waits for it.

use std::path::Path;

use hearth_proto::v1::pool::WarmState;

use crate::cases::{ACQUIRE, followed, from, make_pool};
use crate::cli_fake::{self, Kind};
use crate::collector::Collector;
use crate::docker_engine::{BASE, EngineHost};
use crate::firecracker_fake;
use crate::hearth::{Answer, Host, Outcome};
use crate::running::{Case, cases};

/// Those of providers whose backends are fakes here.
pub(crate) fn of_fakes() -> Vec<Case> {
    cases! {
        false a_cold_acquire_of_firecracker_shows_every_step_of_its_restore,
        false a_cold_acquire_of_apple_container_shows_every_step_of_its_restore,
        false a_cold_acquire_of_smolvm_shows_every_step_of_its_restore,
    }
    all()
}

/// That of a Docker Engine, which has to be here.
pub(crate) fn of_docker() -> Vec<Case> {
    cases! {
        true a_cold_acquire_of_docker_shows_every_step_of_its_restore,
    }
    all()
}

/// One whose pool is empty waits in line for a restore, of which the provider does these steps. `configure` gets a
/// directory, and says what the provider and the default template are.
async fn are_steps(
    provider: &'static str,
    expected: &str,
    configure: impl FnOnce(&Path) -> Answer<String>,
) -> Outcome {
    let collector = Collector::start()?;
    let configured = |dir: &Path| Ok(format!("{}{}", configure(dir)?, collector.settings()));
    let host = Host::configured(provider, 1, configured)?;
    let hearth = host.start().await?;
    make_pool(&hearth, "empty", 0, WarmState::Running).await?;
    let (_, cold) = followed(&hearth, &collector, 1, from("empty")).await?;
    let restore = format!("restore(provider({expected}) probe prepare)");
    let expected = format!("{ACQUIRE}(acquire(select queue({restore}) journal rename))");
    assert_eq!(cold.shape(), expected);
    let acquire = cold.find("acquire").ok_or("no acquire")?;
    let restored = cold.find("restore").ok_or("no restore")?;
    assert_eq!(restored.said("uid"), acquire.said("uid"), "it got what was restored for it");
    assert!(hearth.terminate()?.success(), "{}", host.log_tail());
    Ok(())
}

/// Where the agent of the fake's guests listens.
const AGENT_PORT: u32 = 1024;

async fn a_cold_acquire_of_firecracker_shows_every_step_of_its_restore() -> Outcome {
    are_steps("firecracker", "files furnish spawn load record", |dir| {
        let programs = dir.join("fake");
        std::fs::create_dir(&programs)?;
        let agent_port = Some(AGENT_PORT);
        let settings = firecracker_fake::Settings { agent_port, ..Default::default() };
        let fake = firecracker_fake::install(&programs, &settings);
        let (kernel, rootfs) = (dir.join("vmlinux"), dir.join("rootfs.img"));
        // The smallest that begins as a kernel does.
        std::fs::write(&kernel, b"\x7fELF\x02\x01\x01")?;
        std::fs::File::create(&rootfs)?.set_len(1 << 20)?;
        Ok(format!(
            "[providers.fc]\nkind = \"firecracker\"\nbinary = {:?}\nagent_port = {AGENT_PORT}\n\
             [default_template]\nkernel = {kernel:?}\nrootfs = {rootfs:?}\nvsock_cid = 3\n\
             mem_size_mib = 4\n",
            fake.firecracker
        ))
    })
    .await
}

/// A template of an image whose VMs are ready when they say so.
const TEMPLATE: &str = "ready_marker = \"READY\"\n";

fn tool(dir: &Path, kind: &str, settings: &cli_fake::Settings) -> String {
    let (program, _) = cli_fake::install(dir, settings);
    format!(
        "[providers.tool]\nkind = \"{kind}\"\nbinary = {program:?}\n\
         [default_template]\nimage = \"base\"\n{TEMPLATE}"
    )
}

async fn a_cold_acquire_of_apple_container_shows_every_step_of_its_restore() -> Outcome {
    let version = "1.2.1".to_owned();
    let settings = cli_fake::Settings { kind: Kind::Apple, version, ..Default::default() };
    are_steps("apple-container", "create start record", |dir| {
        Ok(tool(dir, "apple-container", &settings))
    })
    .await
}

async fn a_cold_acquire_of_smolvm_shows_every_step_of_its_restore() -> Outcome {
    let settings = cli_fake::Settings { version: "1.32.2".to_owned(), ..Default::default() };
    are_steps("smolvm", "create start record", |dir| Ok(tool(dir, "smolvm", &settings))).await
}

async fn a_cold_acquire_of_docker_shows_every_step_of_its_restore() -> Outcome {
    // Its start and its end wait for a runtime of its own.
    let engine = tokio::task::block_in_place(|| EngineHost::start("docker"))?;
    let command = "[\"sh\", \"-c\", \"echo READY; exec sleep 1000000\"]";
    let steps = are_steps("docker", "create start record", |_| {
        Ok(format!(
            "[providers.engine]\nkind = \"docker\"\nsocket = {:?}\ncommand = {command}\n\
             [default_template]\nimage = \"{BASE}\"\n{TEMPLATE}",
            engine.socket()
        ))
    })
    .await;
    tokio::task::block_in_place(|| drop(engine));
    steps
}
