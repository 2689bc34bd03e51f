//! Where commands go and who calls: flags, variables, the file; and what is said when that is wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hearth_server::auth::token::TokenHash;

use crate::hearth::{Ended, Server, hearth};

fn close(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn run(command: &mut std::process::Command) -> Ended {
    command.output().unwrap().into()
}

#[test]
fn the_file_says_where_the_server_is_and_who_calls() {
    let token = "hearth_sesame";
    let auth = format!(
        "[tenants.ci]\npools = [\"default\"]\n[identities.ci]\ntenant = \"ci\"\nroles = [\"tenant\"]\n\
         tokens = [\"{}\"]\n",
        TokenHash::of(token.as_bytes())
    );
    let config = "[auth]\nfile = \"auth.toml\"\n".to_owned();
    let server = Server::start_with(&[("auth.toml", auth), ("hearth.toml", config)]);
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("hearth");
    std::fs::create_dir(&directory).unwrap();
    let (file, secret) = (directory.join("client.toml"), directory.join("token"));
    let address = format!("http://{}", server.target());
    let text = format!(
        "address = \"{address}\"\ntoken_file = \"token\"\n[contexts.none]\naddress = \"127.0.0.1:1\"\n"
    );
    std::fs::write(&file, text).unwrap();
    std::fs::write(&secret, token).unwrap();
    close(&secret, 0o600);
    let command = |arguments: &[&str]| {
        let mut command = hearth();
        command.args(arguments).env("XDG_CONFIG_HOME", home.path());
        command
    };
    let listed = run(&mut command(&["vms", "list"]));
    assert_eq!(listed.code, 0, "{listed:?}");
    let elsewhere = run(&mut command(&["vms", "list", "--context", "none"]));
    assert!(elsewhere.code == 4 && elsewhere.err.contains("127.0.0.1:1"), "{elsewhere:?}");
    assert!(elsewhere.err.contains("client.toml"), "it says what says so: {elsewhere:?}");
    let flag = run(&mut command(&["vms", "list", "--address", "127.0.0.1:2"]));
    assert!(flag.err.contains("127.0.0.1:2 (--address)"), "{flag:?}");
    let variable = run(command(&["vms", "list"]).env("HEARTH_ADDRESS", "127.0.0.1:3"));
    assert!(variable.err.contains("127.0.0.1:3 (HEARTH_ADDRESS)"), "{variable:?}");

    let shown = run(&mut command(&["config", "-o", "json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    let of = |name: &str| {
        let mut all = shown["settings"].as_array().unwrap().iter();
        all.find(|it| it["setting"] == name).unwrap().clone()
    };
    assert_eq!(of("address")["value"], address);
    assert_eq!(of("token_file")["value"], secret.to_str().unwrap());
    assert_eq!(of("token_file")["from"], file.to_str().unwrap());
    let hidden = run(command(&["config"]).env("HEARTH_TOKEN", "hunter2"));
    assert!(hidden.out.contains("(not shown)") && !hidden.out.contains("hunter2"), "{hidden:?}");

    close(&secret, 0o644);
    let open = run(&mut command(&["vms", "list"]));
    assert!(open.code == 2 && open.err.contains("chmod 600"), "{open:?}");
    // Who names it by a flag is taken at their word: secrets of containers are not their user's alone.
    let named = run(command(&["vms", "list", "--token-file"]).arg(&secret));
    assert_eq!(named.code, 0, "{named:?}");
    close(&secret, 0o600);
    close(&file, 0o666);
    let open = run(&mut command(&["vms", "list"]));
    assert!(open.code == 2 && open.err.contains("chmod 664"), "{open:?}");
    close(&file, 0o644);
    std::fs::write(&file, "adress = \"a\"\n").unwrap();
    let wrong = run(&mut command(&["vms", "list"]));
    assert!(
        wrong.code == 2 && wrong.err.contains("adress") && wrong.err.contains("line 1"),
        "{wrong:?}"
    );
    let absent = run(&mut command(&["vms", "list", "--client-config", "/no/such/file"]));
    assert!(absent.code == 2 && absent.err.contains("/no/such/file"), "{absent:?}");
}

#[test]
fn a_connection_that_does_not_come_about_says_what_mends_it() {
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
    };
    let (own, other) = (authority("own"), authority("other"));
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["hearth.example".to_owned()]).unwrap();
    let config = "[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";
    let server = Server::start_with(&[
        ("ca.pem", own.pem()),
        ("other.pem", other.pem()),
        ("server.pem", params.signed_by(&key, &own).unwrap().pem()),
        ("server.key", key.serialize_pem()),
        ("hearth.toml", config.to_owned()),
    ]);
    let secure = format!("https://{}", server.target());
    let plain = format!("http://{}", server.target());
    let ask = |more: &[&str]| server.run(&[&["vms", "list"], more].concat());
    let name = ["--server-name", "hearth.example"];
    let well = ask(&[&["--address", &secure, "--ca", "ca.pem"], &name[..]].concat());
    assert_eq!(well.code, 0, "{well:?}");
    for (arguments, wanted) in [
        ([&["--address", &secure, "--ca", "other.pem"], &name[..]].concat(), "--ca"),
        (vec!["--address", &secure, "--ca", "ca.pem"], "--server-name"),
        (vec!["--address", &plain], "https://"),
        (vec!["--address", &secure], "--ca"),
        (vec!["--address", "http://127.0.0.1:1"], "hearth serve"),
        (vec!["--address", "unix:/no/such/socket"], "hearth serve"),
    ] {
        let ended = ask(&arguments);
        assert_eq!(ended.code, 4, "{arguments:?}: {ended:?}");
        let address = arguments[1];
        assert!(ended.err.contains(address), "it says where it looked: {ended:?}");
        let hint = ended.err.lines().nth(1).unwrap_or_default();
        assert!(hint.contains(wanted), "{arguments:?}: {ended:?}");
    }
    // One that wants a certificate hangs up.
    let config = "[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n\
                  require_client_certificate = true\n";
    let files = ["ca.pem", "server.pem", "server.key"]
        .map(|name| (name, std::fs::read_to_string(server.directory.path().join(name)).unwrap()));
    let files = [&files[..], &[("hearth.toml", config.to_owned())]].concat();
    let strict = Server::start_with(&files);
    let secure = format!("https://{}", strict.target());
    let asked = [&["vms", "list", "--address", &secure, "--ca", "ca.pem"], &name[..]].concat();
    let ended = strict.run(&asked);
    assert!(ended.code == 4 && ended.err.contains("--certificate"), "{ended:?}");
    // A server that does not encrypt, asked for a certificate.
    let open = Server::start(0);
    std::fs::write(open.directory.path().join("ca.pem"), own.pem()).unwrap();
    let secure = format!("https://{}", open.target());
    let ended = open.run(&["vms", "list", "--address", &secure, "--ca", "ca.pem"]);
    assert!(ended.code == 4 && ended.err.contains("http:// in place of"), "{ended:?}");
    let ended = open.run(&["vms", "list", "--address", &secure]);
    assert!(ended.code == 4 && ended.err.contains("--ca"), "{ended:?}");
}

#[test]
fn who_is_not_let_in_is_told_as_whom_they_called() {
    let auth = "[tenants.ci]\npools = []\n[identities.ci]\ntenant = \"ci\"\nroles = [\"tenant\"]\n\
                certificates = [\"spiffe://test/ci\"]\n";
    let config = "[auth]\nfile = \"auth.toml\"\n";
    let files = [("auth.toml", auth.to_owned()), ("hearth.toml", config.to_owned())];
    let server = Server::start_with(&files);
    let nobody = server.run(&["vms", "list"]);
    assert!(nobody.code == 1 && nobody.err.contains("--token-file FILE"), "{nobody:?}");
    let wrong = run(server.command(&["vms", "list"]).env("HEARTH_TOKEN", "hunter2"));
    assert!(wrong.err.contains("the token in HEARTH_TOKEN"), "{wrong:?}");
    assert!(!wrong.err.contains("hunter2"), "{wrong:?}");
}
