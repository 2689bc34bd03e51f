//! A host whose Firecracker is the fake, and a look at what that was asked.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_proto::v1::{Vm, endpoint};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::firecracker_fake::{BeforeSocket, Fault, Installed, Settings, What, install};
use crate::hearth::{Answer, Host, Outcome};

/// How many VMs the pool keeps warm.
pub(crate) const DEPTH: usize = 3;
/// Where the agent of the fake's guests listens.
const AGENT_PORT: u32 = 1024;
/// The smallest that begins as a kernel does.
const KERNEL: &[u8] = b"\x7fELF\x02\x01\x01";
/// Everything that hearth asks a Firecracker, and some that it does not.
const REQUESTS: [(&str, &str); 10] = [
    ("GET", "/"),
    ("GET", "/version"),
    ("GET", "/vm/config"),
    ("GET", "/machine-config"),
    ("GET", "/mmds"),
    ("PUT", "/mmds"),
    ("PATCH", "/mmds"),
    ("PATCH", "/vm"),
    ("PUT", "/actions"),
    ("PUT", "/snapshot/create"),
];

/// A host, and the fake that is installed on it.
pub(crate) struct Rig {
    pub(crate) host: Host,
    fake: Installed,
    claims: PathBuf,
}

impl Rig {
    /// VMs are jailed or not.
    pub(crate) fn new(is_jailed: bool) -> Answer<Self> {
        let mut made = None;
        let host = Host::configured("firecracker", DEPTH, |dir| {
            let programs = dir.join("fake");
            std::fs::create_dir(&programs)?;
            let fake = install(&programs, &settings());
            let (kernel, rootfs) = (dir.join("vmlinux"), dir.join("rootfs.img"));
            std::fs::write(&kernel, KERNEL)?;
            std::fs::File::create(&rootfs)?.set_len(1 << 20)?;
            let text = config(&fake, &kernel, &rootfs, is_jailed);
            made = Some((fake, programs.join("claims")));
            Ok(text)
        })?;
        let (fake, claims) = made.ok_or("nothing was installed")?;
        Ok(Self { host, fake, claims })
    }

    /// From now on every request to a Firecracker is noted, and one that starts asks nothing
    /// for a while: what is noted are requests to those that run.
    pub(crate) fn watch(&self) {
        let noted = |(method, path): (&str, &str)| Fault {
            method: method.to_owned(),
            path: path.to_owned(),
            what: What::DelayMillis(0),
            times: Some(100),
        };
        let faults = REQUESTS.map(noted).to_vec();
        let before_socket = Some(BeforeSocket::HangForMillis(5000));
        self.fake.set(&Settings { faults, before_socket, ..settings() });
    }

    /// How many requests were noted.
    pub(crate) fn noted(&self) -> Answer<usize> {
        Ok(std::fs::read_dir(&self.claims)?.count())
    }

    /// All is as it was before [`Self::watch`].
    pub(crate) fn unwatch(&self) {
        self.fake.set(&settings());
    }

    /// The programs: Firecracker and the jailer.
    pub(crate) fn programs(&self) -> (&Path, &Path) {
        (&self.fake.firecracker, &self.fake.jailer)
    }
}

fn settings() -> Settings {
    Settings { agent_port: Some(AGENT_PORT), ..Settings::default() }
}

fn config(fake: &Installed, kernel: &Path, rootfs: &Path, is_jailed: bool) -> String {
    let jailer = match is_jailed {
        true => format!("[providers.fc.jailer]\nbinary = {:?}\n", fake.jailer),
        false => String::new(),
    };
    format!(
        "[providers.fc]\nkind = \"firecracker\"\nbinary = {:?}\nagent_port = {AGENT_PORT}\n{jailer}\
         [default_template]\nkernel = {kernel:?}\nrootfs = {rootfs:?}\nvsock_cid = 3\n\
         mem_size_mib = 4\n",
        fake.firecracker
    )
}

/// Asks the agent of a VM one line, over its vsock as whoever has the VM does.
pub(crate) async fn ask(vm: &Vm, line: &str) -> Answer<String> {
    let socket = vm.endpoints.iter().find(|it| it.kind() == endpoint::Kind::Vsock);
    let socket = Path::new(&socket.ok_or("the VM has no socket")?.address);
    let asked = async {
        // A jail's path can be longer than the address of a socket may be.
        let dir = std::fs::File::open(socket.parent().ok_or("a socket in no directory")?)?;
        let name = socket.file_name().ok_or("a socket without a name")?;
        let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        let stream = tokio::net::UnixStream::connect(short).await?;
        let mut stream = BufReader::new(stream);
        let mut answer = String::new();
        stream.write_all(format!("CONNECT {AGENT_PORT}\n").as_bytes()).await?;
        stream.read_line(&mut answer).await?;
        if !answer.starts_with("OK ") {
            return Err(format!("not connected: {answer:?}").into());
        }
        answer.clear();
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        stream.read_line(&mut answer).await?;
        Ok(answer.trim_end().to_owned())
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await?
}

/// How often the agent of a VM has been pinged, this time included.
pub(crate) async fn pings(vm: &Vm) -> Answer<u64> {
    let answer = ask(vm, "ping").await?;
    let counter = answer.split(' ').find_map(|word| word.strip_prefix("counter="));
    Ok(counter.ok_or_else(|| format!("no counter: {answer}"))?.parse()?)
}

/// Waits until exactly the warm and the leased live.
pub(crate) async fn settle(hearth: &crate::hearth::Hearth, host: &Host, leased: usize) -> Outcome {
    let settled = hearth.until("live = warm + leased", async || {
        let warm = hearth.warm_vms().await.map_or(0, |warm| warm.len());
        warm == DEPTH && host.vmm_pids().len() == DEPTH + leased
    });
    settled.await.map_err(|error| {
        let pids = host.vmm_pids();
        format!("{error}; processes {pids:?}\n{}", host.log_tail()).into()
    })
}
