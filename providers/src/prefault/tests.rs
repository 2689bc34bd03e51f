use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::*;

/// Says to a process of this test binary that it is to map a file.
const MAP: &str = "HEARTH_TEST_MAP_FILE";
const PAGE_BYTES: u64 = 4096;
/// No multiple of what is read at once, or left behind.
const FILE_BYTES: u64 = (5 << 20) + 3 * PAGE_BYTES;

/// Not a case: in a process that was told to, it maps a file as a VMM maps memory, twice as long as the
/// file is, says so, and waits for its input to end. Else it does nothing.
#[test]
fn helper_that_maps_a_file() {
    let Some(path) = std::env::var_os(MAP) else { return };
    let file = File::open(path).unwrap();
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    let length = usize::try_from(2 * FILE_BYTES).unwrap();
    // SAFETY: the kernel picks addresses that nothing else has, and nothing here uses them.
    unsafe { mmap(std::ptr::null_mut(), length, rights, MapFlags::PRIVATE, &file, 0) }.unwrap();
    std::io::stdout().write_all(b"mapped\n").unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// A process that maps a file and touches none of it; ended when it is dropped.
struct Mapper {
    child: Child,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mapper {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest memory");
        std::fs::write(&path, vec![7; usize::try_from(FILE_BYTES).unwrap()]).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "prefault::tests::helper_that_maps_a_file", "--nocapture"]);
        command.env(MAP, &path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mapped = said.map_while(io::Result::ok).any(|line| line.ends_with("mapped"));
        assert!(mapped, "the helper maps its file");
        Self { child, path, _dir: dir }
    }

    fn file(&self) -> MemoryFile<'_> {
        MemoryFile { path: &self.path, lent_as: "" }
    }

    /// What the kernel counts of its mapping, in KiB.
    fn counted(&self, field: &str) -> u64 {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", self.child.id())).unwrap();
        let mut lines = smaps.lines().skip_while(|line| !line.contains("guest memory"));
        let line = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_page_comes_in_and_none_is_copied() {
    let mapper = Mapper::start();
    assert_eq!(mapper.counted("Rss"), 0, "nobody has touched it");
    let touched = touch(mapper.child.id(), &mapper.file(), &|| true).unwrap();
    assert_eq!(touched, Some(FILE_BYTES), "what is past the file's end is left out");
    assert_eq!(mapper.counted("Rss"), FILE_BYTES >> 10);
    assert_eq!(mapper.counted("Anonymous"), 0, "no page was copied");
    // What the test itself wrote into the file counts as dirty until it is on the disk.
    File::open(&mapper.path).unwrap().sync_all().unwrap();
    assert_eq!((mapper.counted("Private_Dirty"), mapper.counted("Shared_Dirty")), (0, 0));
}

#[test]
fn what_is_mapped_of_other_files_is_left_alone() {
    let mapper = Mapper::start();
    let other = mapper.path.with_file_name("other");
    std::fs::write(&other, vec![7; 1 << 20]).unwrap();
    let file = MemoryFile { path: &other, lent_as: "" };
    assert_eq!(touch(mapper.child.id(), &file, &|| true).unwrap(), Some(0));
    assert_eq!(mapper.counted("Rss"), 0);
    // A copy that it was lent is known by its name, also when that is gone.
    std::fs::remove_file(&mapper.path).unwrap();
    let lent = MemoryFile { path: &other, lent_as: "guest memory" };
    assert_eq!(touch(mapper.child.id(), &lent, &|| true).unwrap(), Some(1 << 20), "and no more");
}

#[test]
fn a_process_that_has_ended_is_gone() {
    let mut mapper = Mapper::start();
    mapper.child.kill().unwrap();
    let pid = mapper.child.id();
    // A zombie has no memory, and what was waited for has no number.
    rustix::process::waitid(
        rustix::process::WaitId::Pid(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap()),
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
    )
    .unwrap();
    assert_eq!(touch(pid, &mapper.file(), &|| false).unwrap(), None);
    mapper.child.wait().unwrap();
    assert_eq!(touch(pid, &mapper.file(), &|| false).unwrap(), None);
}

#[test]
fn mappings_are_known_by_inode_path_or_name() {
    let identity = Identity {
        device_and_inode: ("fe:01".to_owned(), 42),
        path: b"/state/snap shots/memory".to_vec(),
        lent_as: b"loaded.memory",
        length_bytes: 1 << 20,
    };
    let maps = "\
        1000-2000 rw-p 00000000 fe:01 42                         /elsewhere/by another name\n\
        2000-3000 r--p 00001000 00:2f 7                          /state/snap shots/memory\n\
        3000-4000 rw-p 00000000 00:2f 8                          /loaded.memory (deleted)\n\
        4000-5000 ---p 00000000 fe:01 42                         /state/snap shots/memory\n\
        5000-6000 rw-p 00000000 fe:01 43                         /state/snap shots/memory.old\n\
        6000-7000 rw-p 00000000 fe:02 42                         /other\n\
        7000-8000 rw-p 00000000 00:00 0                          [heap]\n\
        8000-9000 rw-p 00000000 00:00 0 \n\
        no mapping at all\n";
    let found = identity.mappings(maps.as_bytes()).unwrap();
    let starts: Vec<_> = found.iter().map(|mapping| mapping.start).collect();
    assert_eq!(starts, [0x1000, 0x2000, 0x3000]);
}
