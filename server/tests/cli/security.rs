//! The command line of callers that say who they are, and of servers that ask.

use std::process::Stdio;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use serde_json::Value;

use crate::hearth::{Ended, Server, hearth};

#[test]
fn a_token_is_made_with_its_hash_and_never_twice_the_same() {
    let make = || -> Value {
        let made = hearth().args(["token", "--output", "json"]).output().unwrap();
        serde_json::from_slice(&made.stdout).unwrap()
    };
    let (one, two) = (make(), make());
    let (token, hash) = (one["token"].as_str().unwrap(), one["hash"].as_str().unwrap());
    assert_eq!(hearth_server::auth::token::TokenHash::of(token.as_bytes()).to_string(), hash);
    assert_ne!(one, two);
}

#[test]
fn other_machines_are_not_served_in_plaintext_unless_that_is_spelt_out() {
    let dir = tempfile::tempdir().unwrap();
    let serve = |more: &[&str]| -> Ended {
        let ended = hearth()
            .args(["serve", "--provider", "memory", "--listen", "0.0.0.0:0", "--state"])
            // Where it cannot begin: it must not get so far.
            .arg(dir.path().join("file/state"))
            .args(more)
            .stdin(Stdio::null())
            .output();
        ended.unwrap().into()
    };
    std::fs::write(dir.path().join("file"), "").unwrap();
    let refused = serve(&[]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("--insecure") && refused.err.contains("auth.file"), "{refused:?}");
    let allowed = serve(&["--insecure"]);
    assert_eq!(allowed.code, 1, "it got further: {allowed:?}");
}

#[test]
fn a_caller_says_who_it_is_by_token_certificate_and_socket() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: SanType| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
    };
    let server = issue(SanType::DnsName("localhost".try_into().unwrap()));
    let caller = issue(SanType::URI("spiffe://test/ci".try_into().unwrap()));
    let made = hearth().args(["token", "--output", "name"]).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let hash = hearth_server::auth::token::TokenHash::of(token.as_bytes());
    let auth = format!(
        "[tenants.ci]\npools = [\"default\"]\n[identities.ci]\ntenant = \"ci\"\nroles = [\"tenant\"]\n\
         tokens = [\"{hash}\"]\ncertificates = [\"spiffe://test/ci\"]\n"
    );
    let config = "socket = \"hearth.sock\"\n[auth]\nfile = \"auth.toml\"\n\
                  [tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n";
    let files = [
        ("ca.pem", authority.pem()),
        ("server.pem", server.0),
        ("server.key", server.1),
        ("me.pem", caller.0),
        ("me.key", caller.1),
        ("token", format!("{token}\n")),
        ("wrong", "hearth_wrong".to_owned()),
        ("auth.toml", auth),
        ("hearth.toml", config.to_owned()),
    ];
    let server = Server::start_with(&files);
    let secure = ["--ca", "ca.pem", "--server-name", "localhost"];
    let run = |more: &[&str]| server.run(&[&["vms", "list"], &secure[..], more].concat());
    assert_eq!(run(&["--token-file", "token"]).code, 0);
    assert_eq!(run(&["--certificate", "me.pem", "--key", "me.key"]).code, 0);
    let wrong = run(&["--token-file", "wrong"]);
    assert!(wrong.code == 1 && wrong.err.contains("UNAUTHENTICATED"), "{wrong:?}");
    assert!(run(&[]).err.contains("UNAUTHENTICATED"));
    let drained =
        server.run(&[&["node", "drain"], &secure[..], &["--token-file", "token"]].concat());
    assert!(drained.err.contains("PERMISSION_DENIED"), "{drained:?}");
    // A secret is not a flag; the environment may have it.
    let with = server
        .command(&[&["vms", "list"], &secure[..]].concat())
        .env("HEARTH_TOKEN", &token)
        .output();
    assert_eq!(Ended::from(with.unwrap()).code, 0);
    let socket = format!("unix:{}", server.directory.path().join("hearth.sock").display());
    let local = server.run(&["node", "get", "--address", &socket]);
    assert_eq!(local.code, 0, "who runs it is an operator: {local:?}");
    let plain =
        server.run(&["vms", "list", "--address", "http://10.255.255.1:1", "--token-file", "token"]);
    assert!(plain.code == 2 && plain.err.contains("token"), "{plain:?}");
}
