//! What searches for input that hearth cannot bear have found, and real input to begin from, run again:
//! every file of `fuzz/corpus/`, into its target. `make fuzz` searches; decision 31 has the whole.
//!
//! `HEARTH_BLESS=1` writes the files that the searches begin from, which are made of real messages.

#![expect(clippy::unwrap_used, reason = "a test ends at what fails")]

mod panics;
mod records;
mod seeds;
mod targets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hearth_server::fuzzing::Target;
use libtest_mimic::{Arguments, Failed, Trial};

/// What the names of files begin with that are made here.
const SEED: &str = "seed-";
/// What is committed of a corpus stays small.
const MAX_FILES: usize = 100;
const MAX_FILE_BYTES: u64 = 4096;

fn main() -> ExitCode {
    if std::env::var_os("HEARTH_BLESS").is_some() {
        seeds::all().into_iter().for_each(|seed| seed.write(&corpus(seed.target)));
    }
    panics::listen();
    let corpora = targets::all()
        .map(|target| Trial::test(format!("corpus::{}", target.name), || run_corpus(target)));
    let others = [
        Trial::test("every_target_has_its_program_and_its_corpus", every_target_is_whole),
        Trial::test("a_planted_mistake_is_found", a_planted_mistake_is_found),
        Trial::test("what_searches_begin_from_is_what_is_made_here", seeds_are_as_made),
    ];
    libtest_mimic::run(&Arguments::from_args(), corpora.chain(others).collect()).exit_code()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn corpus(target: &str) -> PathBuf {
    root().join("corpus").join(target)
}

/// Every file of a target's corpus into it.
fn run_corpus(target: &Target) -> Result<(), Failed> {
    let files = files_in(&corpus(target.name))?;
    if files.is_empty() {
        return Err(format!("{} has no corpus", target.name).into());
    }
    run_files(target, &files)
}

fn run_files(target: &Target, files: &[PathBuf]) -> Result<(), Failed> {
    for file in files {
        let bytes = std::fs::read(file)?;
        let run = target.run;
        panics::none(move || run(&bytes)).map_err(|why| format!("{}: {why}", file.display()))?;
    }
    Ok(())
}

fn files_in(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let read = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut files = read.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// A target that only one of the two ways in has would not be searched, or not be run here.
fn every_target_is_whole() -> Result<(), Failed> {
    let known: BTreeSet<_> = targets::all().map(|it| it.name.to_owned()).collect();
    let stem = |path: PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut programs: BTreeSet<_> =
        files_in(&root().join("fuzz_targets"))?.into_iter().map(stem).collect();
    assert!(programs.remove("planted"), "the mistake that a search has to find");
    assert_eq!(programs, known);
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    for name in &known {
        let program = std::fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs")))?;
        assert!(program.contains(&format!("run(\"{name}\"")), "{name}: it runs another");
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name}: no program");
    }
    let corpora: BTreeSet<_> = files_in(&root().join("corpus"))?.into_iter().map(stem).collect();
    assert_eq!(corpora, known);
    for name in &known {
        let files = files_in(&corpus(name))?;
        assert!(files.len() <= MAX_FILES, "{name} has {} files", files.len());
        for file in files {
            assert!(file.metadata()?.len() <= MAX_FILE_BYTES, "{} is too long", file.display());
        }
    }
    Ok(())
}

/// A target that panics, itself or in a task that nobody waits for, fails, and is told with the file.
fn a_planted_mistake_is_found() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = [file("good", "good"), file("bad", "bad")];
    let planted = |run| Target { name: "planted", run };
    let plain = planted(|bytes| assert_ne!(bytes, b"bad", "a planted mistake"));
    let hidden = planted(|bytes| {
        let bytes = bytes.to_vec();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let tasks = hearth_pool::tasks::TaskGroup::new();
            tasks.spawn(async move { assert_ne!(bytes, b"bad", "a planted mistake") });
            tasks.join(std::time::Duration::MAX).await;
        });
    });
    for target in [plain, hidden] {
        run_files(&target, &files[..1])?;
        let found = run_files(&target, &files).unwrap_err();
        let text = found.message().unwrap_or_default().to_owned();
        assert!(text.contains("bad") && text.contains("a planted mistake"), "{text}");
    }
    Ok(())
}

/// Their methods are told by numbers, which change when a method is added.
fn seeds_are_as_made() -> Result<(), Failed> {
    let (mut made, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for seed in seeds::all() {
        let file = corpus(seed.target).join(format!("{SEED}{}", seed.name));
        let is_same = std::fs::read(&file).is_ok_and(|bytes| bytes == seed.bytes);
        if !is_same && seed.repeats {
            let how = "HEARTH_BLESS=1 cargo test -p hearth-server --test fuzz";
            return Err(format!("{} is not as it is made now: {how}", file.display()).into());
        }
        made.insert(file);
    }
    for target in targets::all() {
        let is_seed = |file: &PathBuf| {
            file.file_name().is_some_and(|it| it.to_string_lossy().starts_with(SEED))
        };
        kept.extend(files_in(&corpus(target.name))?.into_iter().filter(is_seed));
    }
    assert_eq!(kept, made, "every one is made, and every one that is made is there");
    Ok(())
}
