//! Clients in Python, by grpcio, drive the whole life of a VM on a real server: with stubs that are made of our
//! files here, and by reflection alone.
//!
//! The packages lie in `HEARTH_PYTHON`, or `target/python`, as `pip install --target` puts them there. Without
//! them, or without Python, the cases are ignored with the reason, or fail when `HEARTH_REQUIRE` names `python`.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

#[path = "../cli/hearth.rs"]
#[allow(dead_code, reason = "the command line's cases need more of it")]
mod hearth;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use hearth::Server;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What the clients import.
const IMPORTS: &str = "import grpc, grpc_tools.protoc, grpc_reflection.v1alpha.reflection";

/// What a case does.
type Case = fn(&Python);

/// Python, and where its packages and our files are.
#[derive(Clone)]
struct Python {
    packages: PathBuf,
    root: PathBuf,
}

impl Python {
    /// # Errors
    /// What is missing.
    fn find() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
        let packages = std::env::var_os("HEARTH_PYTHON")
            .map_or_else(|| root.join("target/python"), PathBuf::from);
        let python = Self { packages, root };
        match python.run(&[], &["-c", IMPORTS]).map(|it| (it.status.success(), it.stderr)) {
            Ok((true, _)) => Ok(python),
            Ok((false, said)) => {
                let said = String::from_utf8_lossy(&said);
                let last = said.trim().lines().last().unwrap_or_default().to_owned();
                Err(format!(
                    "python3 has not all packages in {}: {last}",
                    python.packages.display()
                ))
            }
            Err(error) => Err(format!("there is no python3: {error}")),
        }
    }

    /// Runs python3 with these directories on its path, too.
    fn run(&self, path: &[&Path], arguments: &[&str]) -> std::io::Result<Output> {
        let path = path.iter().copied().chain([self.packages.as_path()]);
        let path = std::env::join_paths(path).unwrap();
        Command::new("python3")
            .args(arguments)
            .env("PYTHONPATH", path)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(&self.root)
            .output()
    }

    /// The same, and it has to succeed.
    fn must(&self, path: &[&Path], arguments: &[&str]) -> String {
        let ended = self.run(path, arguments).unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "python3 {arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Makes stubs of every file below `proto` in `into`.
    fn make_stubs(&self, into: &Path) {
        let mut arguments = vec!["-m".to_owned(), "grpc_tools.protoc".to_owned()];
        let protos = self.root.join("proto");
        // The inner one first: a file is named from the first that it lies below.
        for directory in [&protos.join("third_party"), &protos] {
            arguments.push(format!("-I{}", directory.display()));
        }
        for kind in ["python", "grpc_python"] {
            arguments.push(format!("--{kind}_out={}", into.display()));
        }
        let mut files = Vec::new();
        find_protos(&protos, &mut files);
        arguments.extend(files.iter().map(|file| file.to_str().unwrap().to_owned()));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.must(&[], &arguments);
    }
}

fn find_protos(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_protos(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
}

fn stubs_live(python: &Python) {
    let stubs = tempfile::tempdir().unwrap();
    python.make_stubs(stubs.path());
    let server = Server::start(4);
    let config = python.root.join("proto/service_config.json");
    let script = python.root.join("server/tests/python/stubs.py");
    let arguments = [script.to_str().unwrap(), server.target(), config.to_str().unwrap()];
    assert_eq!(python.must(&[stubs.path()], &arguments), "lived\n");
}

fn what_is_reflected_lives(python: &Python) {
    let server = Server::start(4);
    let script = python.root.join("server/tests/python/reflected.py");
    assert_eq!(python.must(&[], &[script.to_str().unwrap(), server.target()]), "lived\n");
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let python =
        if arguments.list { Err("it was not asked for".to_owned()) } else { Python::find() };
    let required = std::env::var("HEARTH_REQUIRE")
        .is_ok_and(|names| names.split([',', ' ']).any(|name| name == "python"));
    let cases: [(&str, Case); 2] = [
        ("stubs_of_our_files_drive_the_whole_life_of_a_vm", stubs_live),
        ("reflection_alone_is_enough", what_is_reflected_lives),
    ];
    let trials = cases.map(|(name, case)| {
        let python = python.clone();
        Trial::ignorable_test(name, move || match &python {
            Ok(python) => {
                case(python);
                Ok(Completion::Completed)
            }
            Err(missing) if required => {
                Err(Failed::from(format!("HEARTH_REQUIRE names it: {missing}")))
            }
            Err(missing) => Ok(Completion::ignored_with(missing.clone())),
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}
