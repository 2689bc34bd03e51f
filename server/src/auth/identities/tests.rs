use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;

use super::*;

fn hash(token: &str) -> TokenHash {
    TokenHash::of(token.as_bytes())
}

fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn read(text: &str) -> Result<Known, String> {
    let (_dir, path) = written(text);
    load(&path).map(|(known, _)| known)
}

#[test]
fn everybody_is_known_by_what_the_file_says() {
    let text = format!(
        "[tenants.ci]\npools = [\"web\"]\nhost_names = true\n\
         [identities.runner]\ntenant = \"ci\"\nroles = [\"tenant\"]\ntokens = [\"{}\", \"{}\"]\n\
         certificates = [\"spiffe://example.org/ci\", \"ci.example.org\"]\n\
         [identities.root]\ntenant = \"ops\"\nroles = [\"operator\", \"viewer\"]\nuids = [0]\n",
        hash("old"),
        hash("new")
    );
    let known = read(&text).unwrap();
    for token in ["old", "new"] {
        let found = known.by_token(token.as_bytes(), Duration::ZERO).unwrap();
        assert_eq!((&*found.name, found.tenant.as_str()), ("runner", "ci"));
        assert!(found.roles.has(Role::Tenant) && !found.roles.has(Role::Operator));
        assert!(found.grants.host_names && !found.grants.all_pools);
        assert!(found.grants.pools.contains(&PoolId::parse("web").unwrap()));
    }
    assert!(known.by_token(b"newer", Duration::ZERO).is_err());
    let hash = hash("new").to_string();
    assert!(known.by_token(hash.as_bytes(), Duration::ZERO).is_err(), "a hash is no token");
    let of = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|it| (*it).to_owned()).collect();
        known.by_certificate(&names).map(|it| it.name.to_string())
    };
    assert_eq!(of(&["ci.example.org"]).as_deref(), Some("runner"));
    assert_eq!(of(&["spiffe://example.org/ci", "x"]).as_deref(), Some("runner"));
    assert_eq!(of(&["spiffe://example.org/ci/x"]), None);
    let root = known.by_uid(0).unwrap();
    assert!(root.roles.has(Role::Operator) && root.roles.has(Role::Viewer));
    assert_eq!(root.grants, Arc::default(), "nothing was said of its tenant");
    assert!(known.by_uid(1).is_none());
}

#[test]
fn a_certificate_with_the_names_of_two_is_nobodys() {
    let text = "[identities.a]\ntenant = \"a\"\nroles = [\"tenant\"]\ncertificates = [\"a\"]\n\
                [identities.b]\ntenant = \"b\"\nroles = [\"operator\"]\ncertificates = [\"b\"]\n";
    let known = read(text).unwrap();
    assert!(known.by_certificate(&["a".to_owned(), "b".to_owned()]).is_none());
    assert!(known.by_certificate(&["a".to_owned(), "a".to_owned()]).is_some());
}

#[test]
fn what_is_wrong_is_named() {
    let identity = "[identities.a]\ntenant = \"t\"\nroles = [\"tenant\"]\n";
    let two =
        format!("{identity}uids = [7]\n[identities.b]\ntenant = \"t\"\nroles = [\"viewer\"]\n");
    let jwt = "[jwt]\nkeys = \"absent\"\naudience = [\"h\"]\nalgorithms = [\"ES256\"]\n";
    let cases = [
        ("nonsense = 1".to_owned(), "nonsense"),
        (format!("{identity}token = \"x\""), "token"),
        (format!("{identity}tokens = [\"hearth_plain\"]"), "sha256"),
        ("[identities.a]\ntenant = \"t\"\nroles = []".to_owned(), "roles"),
        ("[identities.a]\ntenant = \"t\"\nroles = [\"root\"]".to_owned(), "root"),
        ("[identities.a]\nroles = [\"tenant\"]".to_owned(), "tenant"),
        ("[identities.a]\ntenant = \"\"\nroles = [\"tenant\"]".to_owned(), "tenant"),
        ("[tenants.t]\npools = [\"No Pool\"]".to_owned(), "tenants.t"),
        (format!("{two}uids = [7]"), "a's already"),
        (jwt.to_owned(), "jwt.keys"),
        (jwt.replace("ES256", "HS256"), "algorithms"),
        (jwt.replace("[\"h\"]", "[]"), "audience"),
        (jwt.replace("keys", "kids"), "kids"),
    ];
    for (text, expected) in cases {
        let why = read(&text).unwrap_err();
        assert!(why.contains(expected), "{text}: {why}");
    }
    assert!(Identities::open(Path::new("/does/not/exist")).is_err());
}

#[test]
fn a_jwt_is_remembered_until_it_expires_and_no_longer() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let text = "[jwt]\nkeys = \"keys.pem\"\naudience = [\"h\"]\nalgorithms = [\"ES256\"]\n\
                [identities.a]\ntenant = \"t\"\nroles = [\"tenant\"]\nsubjects = [\"s\"]\n";
    let (dir, path) = written(text);
    std::fs::write(dir.path().join("keys.pem"), pair.public_key_pem()).unwrap();
    let (known, before) = load(&path).unwrap();
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let exp = get_current_timestamp() + 60;
    let token = |subject: &str, number: u64| {
        let claims = json!({"sub": subject, "aud": "h", "exp": exp, "n": number});
        encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
    };
    let at = |token: &str, seconds| known.by_token(token.as_bytes(), Duration::from_secs(seconds));
    let first = token("s", 0);
    assert_eq!(&*at(&first, exp - 1).unwrap().name, "a");
    assert_eq!(&*at(&first, exp + 29).unwrap().name, "a", "the leeway");
    // It is the remembered one that is asked: the real clock has not gone on.
    assert!(at(&first, exp + 31).unwrap_err().contains("expired"));
    assert!(at(&token("nobody", 0), exp).unwrap_err().contains("subject"));
    for number in 1..=MAX_REMEMBERED as u64 / 64 {
        at(&token("s", number), exp).unwrap();
    }
    assert!(known.remembered.lock().until.len() <= MAX_REMEMBERED);
    // Another key is another digest.
    let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    std::fs::write(dir.path().join("keys.pem"), other.public_key_pem()).unwrap();
    let (known, after) = load(&path).unwrap();
    assert_ne!(before, after);
    assert!(known.by_token(first.as_bytes(), Duration::ZERO).is_err());
}

#[test]
fn what_is_remembered_is_bounded() {
    let identity = Arc::new(Identity {
        name: "a".into(),
        tenant: Tenant::new("t"),
        roles: Roles::default(),
        grants: Arc::default(),
        calls: Arc::default(),
    });
    let mut remembered = Remembered::default();
    for number in 0..3 * MAX_REMEMBERED {
        let hash = TokenHash::of(&number.to_le_bytes());
        remembered.insert(hash, Arc::clone(&identity), Duration::MAX);
    }
    assert_eq!(remembered.until.len(), MAX_REMEMBERED);
    assert_eq!(remembered.oldest_first.len(), MAX_REMEMBERED);
}
