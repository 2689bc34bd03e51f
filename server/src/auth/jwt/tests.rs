use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;

fn settings(algorithms: &[Algorithm]) -> JwtSettings {
    JwtSettings {
        keys: PathBuf::from("keys.pem"),
        audience: vec!["hearth".to_owned()],
        issuer: Some("https://issuer.test".to_owned()),
        algorithms: algorithms.to_vec(),
        leeway: Duration::from_secs(10),
    }
}

struct Signer {
    key: EncodingKey,
    public: String,
}

fn signer() -> Signer {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    Signer { key, public: pair.public_key_pem() }
}

fn now() -> u64 {
    get_current_timestamp()
}

fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({
        "sub": "ci", "aud": "hearth", "iss": "https://issuer.test", "exp": now() + 60,
    });
    change(&mut claims);
    claims
}

fn token(signer: &Signer, claims: &Value) -> String {
    encode(&Header::new(Algorithm::ES256), claims, &signer.key).unwrap()
}

#[test]
fn a_token_that_holds_names_its_subject() {
    let signer = signer();
    let verifier = Verifier::new(&settings(&[Algorithm::ES256]), signer.public.as_bytes()).unwrap();
    let exp = now() + 60;
    let verified = verifier.verify(token(&signer, &claims(|it| it["exp"] = json!(exp))).as_bytes());
    let until = Duration::from_secs(exp + 10);
    assert_eq!(verified, Ok(Verified { subject: "ci".to_owned(), until }));
}

#[test]
fn what_does_not_hold_is_refused_with_the_reason() {
    let signer = signer();
    let verifier = Verifier::new(&settings(&[Algorithm::ES256]), signer.public.as_bytes()).unwrap();
    let refused = |change: fn(&mut Value)| {
        verifier.verify(token(&signer, &claims(change)).as_bytes()).unwrap_err()
    };
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 9] = [
        (|it| it["exp"] = json!(now() - 11), "expired"),
        (|it| it["nbf"] = json!(now() + 30), "does not hold yet"),
        (|it| it["aud"] = json!("another"), "audience"),
        (|it| it["iss"] = json!("https://other.test"), "issuer"),
        (|it| drop(it.as_object_mut().unwrap().remove("exp")), "lacks"),
        (|it| drop(it.as_object_mut().unwrap().remove("aud")), "lacks"),
        (|it| drop(it.as_object_mut().unwrap().remove("sub")), ""),
        (|it| drop(it.as_object_mut().unwrap().remove("iss")), "lacks"),
        (|it| it["exp"] = json!("tomorrow"), ""),
    ];
    for (change, expected) in cases {
        let why = refused(change);
        assert!(why.contains(expected), "{why}: {expected}");
    }
    // A clock that is a little off is borne.
    let late = token(&signer, &claims(|it| it["exp"] = json!(now() - 5)));
    assert!(verifier.verify(late.as_bytes()).is_ok());
}

#[test]
fn no_signature_and_a_symmetric_one_are_refused() {
    let signer = signer();
    let verifier = Verifier::new(&settings(&[Algorithm::ES256]), signer.public.as_bytes()).unwrap();
    let good = token(&signer, &claims(|_| ()));
    let [_, body, signature] = *good.split('.').collect::<Vec<_>>() else { panic!("a JWT") };
    // {"alg":"none"}, {"alg":"None"} and {"alg":"NONE","typ":"JWT"}
    let none =
        ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0", "eyJhbGciOiJOT05FIiwidHlwIjoiSldUIn0"];
    for header in none {
        for signature in ["", signature] {
            let forged = format!("{header}.{body}.{signature}");
            assert!(verifier.verify(forged.as_bytes()).is_err(), "{forged}");
        }
    }
    // The public key is everybody's, and must not do as a secret.
    let secret = EncodingKey::from_secret(signer.public.as_bytes());
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let confused = encode(&Header::new(algorithm), &claims(|_| ()), &secret).unwrap();
        assert!(verifier.verify(confused.as_bytes()).is_err(), "{algorithm:?}");
    }
    // Another's key, whatever the token says of where to find it.
    let other = self::signer();
    let mut header = Header::new(Algorithm::ES256);
    header.jku = Some("https://evil.test/keys".to_owned());
    let foreign = encode(&header, &claims(|_| ()), &other.key).unwrap();
    assert!(verifier.verify(foreign.as_bytes()).is_err());
    let mut header = Header::new(Algorithm::ES256);
    header.crit = Some(vec!["b64".to_owned()]);
    let critical = encode(&header, &claims(|_| ()), &signer.key).unwrap();
    assert!(verifier.verify(critical.as_bytes()).unwrap_err().contains("critical"));
    for nonsense in ["", ".", "..", "a.b.c", "a.b.c.d", &good[..good.len() - 4], "\u{e9}.\u{e9}.x"]
    {
        assert!(verifier.verify(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
}

#[test]
fn a_key_is_used_with_the_algorithms_that_are_pinned_only() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let ed25519 = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    let signer = signer();
    let both = format!("{}{}", signer.public, pair.public_key_pem());
    let of = |key: &EncodingKey, algorithm| {
        encode(&Header::new(algorithm), &claims(|_| ()), key).unwrap()
    };
    let (es256, eddsa) = (of(&signer.key, Algorithm::ES256), of(&ed25519, Algorithm::EdDSA));
    let holds = |algorithms: &[Algorithm], token: &str| {
        let verifier = Verifier::new(&settings(algorithms), both.as_bytes()).unwrap();
        verifier.verify(token.as_bytes()).is_ok()
    };
    assert!(holds(&[Algorithm::ES256], &es256) && !holds(&[Algorithm::ES256], &eddsa));
    assert!(!holds(&[Algorithm::EdDSA], &es256) && holds(&[Algorithm::EdDSA], &eddsa));
    let two = [Algorithm::EdDSA, Algorithm::ES256];
    assert!(holds(&two, &es256) && holds(&two, &eddsa));
    assert!(Verifier::new(&settings(&[Algorithm::RS256]), both.as_bytes()).is_err());
}

#[test]
fn keys_that_must_not_be_there_are_refused() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let settings = settings(&[Algorithm::ES256]);
    let refused = |text: &str| Verifier::new(&settings, text.as_bytes()).unwrap_err();
    assert!(refused(&pair.serialize_pem()).contains("private"));
    let symmetric = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]});
    assert!(refused(&symmetric.to_string()).contains("symmetric"));
    assert!(refused("").contains("no public key"));
    // What is to encrypt does not say who somebody is.
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    let set = |is_for: &str| {
        let mut jwk = serde_json::to_value(&jwk).unwrap();
        jwk["use"] = json!(is_for);
        json!({"keys": [jwk]}).to_string()
    };
    assert!(refused(&set("enc")).contains("no public key"));
    assert!(Verifier::new(&settings, set("sig").as_bytes()).is_ok());
    assert!(refused("{\"keys\": []}").contains("no public key"));
    assert!(!refused("{\"keys\": 1}").is_empty());
}

#[test]
fn a_key_of_a_set_is_found_by_its_id() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some("one".to_owned());
    let odd = json!({"kty": "future", "kid": "two"});
    let set = json!({"keys": [odd, serde_json::to_value(&jwk).unwrap()]});
    let settings = settings(&[Algorithm::ES256]);
    let verifier = Verifier::new(&settings, set.to_string().as_bytes()).unwrap();
    let of = |id: Option<&str>| {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        let token = encode(&header, &claims(|_| ()), &key).unwrap();
        verifier.verify(token.as_bytes()).is_ok()
    };
    assert!(of(Some("one")) && of(None) && !of(Some("two")));
}

#[test]
fn settings_that_would_let_anybody_in_are_refused() {
    let good = settings(&[Algorithm::ES256]);
    assert_eq!(good.check(), None);
    let key = |change: fn(&mut JwtSettings)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.check().map(|(key, _)| key)
    };
    assert_eq!(key(|it| it.audience.clear()), Some("audience"));
    assert_eq!(key(|it| it.algorithms.clear()), Some("algorithms"));
    assert_eq!(key(|it| it.algorithms.push(Algorithm::HS256)), Some("algorithms"));
    assert_eq!(key(|it| it.leeway = Duration::from_secs(301)), Some("leeway"));
}
