//! Bearer JWTs: who signed one, for whom, and until when it holds.
//!
//! Keys are public ones, from a file. Which algorithms a key may be used with follows from the key
//! and from the configuration, and never from the token: `alg: none` names no algorithm that there
//! is, and a symmetric one goes with no key that is read here. What a token says of where to find its
//! key (`jku`, `jwk`, `x5u`) is not looked at.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde::Deserialize;

/// The most keys of one file.
const MAX_KEYS: usize = 32;
/// The longest leeway: more would keep what has expired.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// How tokens are checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JwtSettings {
    /// Public keys: a JWK set, or PEM.
    pub(crate) keys: PathBuf,
    /// A token must be meant for one of these.
    pub(crate) audience: Vec<String>,
    /// Who must have made it; unset: whoever has the key.
    #[serde(default)]
    pub(crate) issuer: Option<String>,
    /// What it may be signed with.
    pub(crate) algorithms: Vec<Algorithm>,
    /// How far the clocks of others may be off.
    #[serde(default = "default_leeway", with = "humantime_serde")]
    pub(crate) leeway: Duration,
}

const fn default_leeway() -> Duration {
    Duration::from_secs(30)
}

impl JwtSettings {
    /// What is wrong with it: the key and why.
    pub(crate) fn check(&self) -> Option<(&'static str, &'static str)> {
        match self {
            _ if self.audience.iter().all(String::is_empty) => {
                Some(("audience", "it must name what tokens are for: another's would do else"))
            }
            _ if self.algorithms.is_empty() => {
                Some(("algorithms", "it must name what tokens are signed with"))
            }
            _ if self.algorithms.iter().any(|it| it.family() == AlgorithmFamily::Hmac) => {
                Some(("algorithms", "a symmetric one would let whoever checks tokens make them"))
            }
            _ if self.leeway > MAX_LEEWAY => Some(("leeway", "it must be at most 5 minutes")),
            _ => None,
        }
    }
}

/// What a token that holds says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verified {
    /// Whom it is about.
    pub(crate) subject: String,
    /// Until when it holds, leeway included, since 1970.
    pub(crate) until: Duration,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    /// How a token is checked that claims one of the key's algorithms.
    checks: Vec<(Algorithm, Validation)>,
}

/// Checks tokens.
pub(crate) struct Verifier {
    keys: Vec<Key>,
    leeway: Duration,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Checks as `settings` says, with the keys in `text`.
    ///
    /// # Errors
    /// What is wrong with the keys.
    pub(crate) fn new(settings: &JwtSettings, text: &[u8]) -> Result<Self, String> {
        let is_json = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let read = if is_json { of_jwks(text)? } else { of_pem(text)? };
        if read.len() > MAX_KEYS {
            return Err(format!("there are more than {MAX_KEYS} keys"));
        }
        let keys = read.into_iter().map(|(id, key, able)| {
            let algorithms = settings.algorithms.iter().filter(|it| able.contains(it));
            let checks = algorithms.map(|it| (*it, validation(settings, *it))).collect();
            Key { id, key, checks }
        });
        let keys: Vec<_> = keys.filter(|key| !key.checks.is_empty()).collect();
        match keys.is_empty() {
            true => Err("there is no public key that goes with one of the algorithms".to_owned()),
            false => Ok(Self { keys, leeway: settings.leeway }),
        }
    }

    /// What `token` says, if it holds.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn verify(&self, token: &[u8]) -> Result<Verified, &'static str> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "the token is no JWT")?;
        if header.crit.is_some() {
            return Err("the token has critical extensions, and none is known here");
        }
        let mut why = "the token is signed with a key or an algorithm that is not accepted";
        for key in &self.keys {
            let is_named = key.id.is_none() || header.kid.is_none() || key.id == header.kid;
            let check = key.checks.iter().find(|(algorithm, _)| *algorithm == header.alg);
            let Some((_, check)) = check.filter(|_| is_named) else { continue };
            match jsonwebtoken::decode::<Claims>(token, &key.key, check) {
                Ok(data) => {
                    let Claims { sub: subject, exp } = data.claims;
                    let until = Duration::try_from_secs_f64(exp).unwrap_or(Duration::MAX);
                    return Ok(Verified { subject, until: until.saturating_add(self.leeway) });
                }
                // Another key may fit.
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
                Err(error) => why = reason(error.kind()),
            }
        }
        Err(why)
    }
}

const fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token does not hold yet",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => {
            "the token lacks sub, aud, exp or iss"
        }
        _ => "the token does not hold",
    }
}

fn validation(settings: &JwtSettings, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = settings.leeway.as_secs();
    validation.validate_nbf = true;
    validation.set_audience(&settings.audience);
    let mut required = vec!["exp", "aud", "sub"];
    if let Some(issuer) = &settings.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// A key, what it is called, and what it can check.
type Read = (Option<String>, DecodingKey, Vec<Algorithm>);

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

fn of_jwks(text: &[u8]) -> Result<Vec<Read>, String> {
    let set: KeySet = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut read = Vec::new();
    for (place, value) in set.keys.into_iter().enumerate() {
        // Sets have keys of kinds that are not known here, for others.
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
        let able = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) => {
                return Err(format!(
                    "keys[{place}] is symmetric: whoever checks tokens could make them"
                ));
            }
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => continue,
            },
            AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
            _ => continue,
        };
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
            continue;
        }
        let only = common.key_algorithm.map(|it| it.to_string().parse::<Algorithm>());
        let able = match only {
            None => able,
            Some(Ok(only)) => able.into_iter().filter(|it| *it == only).collect(),
            Some(Err(_)) => continue,
        };
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| format!("keys[{place}]: {error}"))?;
        read.push((common.key_id.clone(), key, able));
    }
    Ok(read)
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

fn of_pem(text: &[u8]) -> Result<Vec<Read>, String> {
    const END: &str = "-----END PUBLIC KEY-----";
    let text = std::str::from_utf8(text).map_err(|_| "it is neither JSON nor PEM".to_owned())?;
    if text.contains("PRIVATE KEY") {
        return Err("it has a private key: give hearth the public one only".to_owned());
    }
    let sections = text.split_inclusive(END).filter(|section| section.contains(END));
    let mut read = Vec::new();
    for (place, section) in sections.enumerate() {
        let pem = section.as_bytes();
        let (key, able) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            (key, RSA.to_vec())
        } else if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            (key, vec![Algorithm::ES256, Algorithm::ES384])
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            (key, vec![Algorithm::EdDSA])
        } else {
            return Err(format!("public key {} is of no kind that is known here", place + 1));
        };
        read.push((None, key, able));
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
