//! Static tokens: 256 random bits each, of which a server knows only the hash.
//!
//! What has that much entropy needs no slow hash, and a hash that leaks is worth nothing.

use std::fmt;
use std::str::FromStr;

use hearth_providers::env::Env;
use sha2::{Digest as _, Sha256};

/// What every token begins with, so that one that leaked is found by a search.
pub const PREFIX: &str = "hearth_";
/// How a hash of a token is written.
const HASH_PREFIX: &str = "sha256:";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// The SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash(pub(crate) [u8; 32]);

impl TokenHash {
    /// That of `token`.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is wrong with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be \"sha256:\" and 64 hexadecimal digits, as `hearth token` prints it")]
pub struct NoHash;

impl FromStr for TokenHash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let digits = text.strip_prefix(HASH_PREFIX).ok_or(NoHash)?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return Err(NoHash);
        }
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let value = nibble(pair[0]).zip(nibble(pair[1])).ok_or(NoHash)?;
            *byte = u8::try_from(value.0 * 16 + value.1).map_err(|_| NoHash)?;
        }
        Ok(Self(hash))
    }
}

/// A new token, and what a server is told of it.
pub fn generate(env: &dyn Env) -> (String, TokenHash) {
    let mut bytes = [0; TOKEN_BYTES];
    env.fill(&mut bytes);
    let mut token = PREFIX.to_owned();
    for byte in bytes {
        token.extend(
            [byte >> 4, byte & 15].map(|it| char::from_digit(it.into(), 16).unwrap_or('0')),
        );
    }
    let hash = TokenHash::of(token.as_bytes());
    (token, hash)
}

#[cfg(test)]
mod tests {
    use hearth_providers::env::SystemEnv;

    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let (token, hash) = generate(&SystemEnv);
        assert_eq!((token.len(), token.starts_with(PREFIX)), (PREFIX.len() + 64, true));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_ne!(generate(&SystemEnv).0, token);
        let known = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(TokenHash::of(b"").to_string(), known);
        for nonsense in ["", "sha256:", &known[7..], &known[..70], &known.replace('e', "g")] {
            assert_eq!(nonsense.parse::<TokenHash>(), Err(NoHash), "{nonsense}");
        }
    }
}
