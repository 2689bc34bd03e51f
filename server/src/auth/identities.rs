//! Who there is: the file of `auth.file`, read anew when it changes.
//!
//! What is known at one moment is one value that is replaced as a whole, and with it what was
//! remembered of tokens: a token, a certificate or a key that is taken out of the file is refused from
//! the next call on. A file that cannot be read changes nothing but the log.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hearth_pool::ids::{PoolId, Tenant};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;

use super::jwt::{JwtSettings, Verifier};
use super::token::TokenHash;
use super::{Grants, Identity, Role, Roles};
use crate::reload::{self, Source};

/// The longest token that is looked at, in bytes.
pub(crate) const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// JWTs that are remembered.
const MAX_REMEMBERED: usize = 4096;
/// The longest name of an identity or a tenant, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Stands for every pool.
const ALL: &str = "*";

/// The file, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    tenants: BTreeMap<String, TenantFile>,
    identities: BTreeMap<String, IdentityFile>,
    jwt: Option<JwtSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TenantFile {
    pools: BTreeSet<String>,
    host_names: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    tenant: String,
    roles: BTreeSet<Role>,
    #[serde(default)]
    tokens: Vec<String>,
    #[serde(default)]
    subjects: Vec<String>,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    uids: Vec<u32>,
}

/// Everybody, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Known {
    by_token: HashMap<TokenHash, Arc<Identity>>,
    by_subject: HashMap<String, Arc<Identity>>,
    by_certificate: HashMap<String, Arc<Identity>>,
    by_uid: HashMap<u32, Arc<Identity>>,
    jwt: Option<Verifier>,
    remembered: Mutex<Remembered>,
}

/// JWTs that held, by their hash, until they hold no longer.
#[derive(Debug, Default)]
struct Remembered {
    until: HashMap<TokenHash, (Arc<Identity>, Duration)>,
    oldest_first: VecDeque<TokenHash>,
}

impl Remembered {
    fn insert(&mut self, hash: TokenHash, identity: Arc<Identity>, until: Duration) {
        if self.until.insert(hash, (identity, until)).is_none() {
            self.oldest_first.push_back(hash);
        }
        while self.oldest_first.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.until.remove(&oldest);
            }
        }
    }
}

impl Known {
    /// Who has `token`, at `now` since 1970.
    ///
    /// # Errors
    /// Why nobody has.
    pub(crate) fn by_token(
        &self,
        token: &[u8],
        now: Duration,
    ) -> Result<Arc<Identity>, &'static str> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("the token is longer than any is");
        }
        let hash = TokenHash::of(token);
        if let Some(identity) = self.by_token.get(&hash) {
            return Ok(Arc::clone(identity));
        }
        let Some(jwt) = &self.jwt else { return Err("the token is nobody's") };
        if let Some((identity, until)) = self.remembered.lock().until.get(&hash) {
            return match now <= *until {
                true => Ok(Arc::clone(identity)),
                false => Err("the token has expired"),
            };
        }
        if token.iter().filter(|byte| **byte == b'.').count() != 2 {
            return Err("the token is nobody's");
        }
        let verified = jwt.verify(token)?;
        let identity = self.by_subject.get(&verified.subject);
        let identity = identity.ok_or("the token's subject is nobody here")?;
        self.remembered.lock().insert(hash, Arc::clone(identity), verified.until);
        Ok(Arc::clone(identity))
    }

    /// Whose certificate has these names; nobody's when they are several identities'.
    pub(crate) fn by_certificate(&self, names: &[String]) -> Option<&Arc<Identity>> {
        let mut found = names.iter().filter_map(|name| self.by_certificate.get(name));
        let first = found.next()?;
        found.all(|other| Arc::ptr_eq(first, other)).then_some(first)
    }

    /// Who runs programs as this user.
    pub(crate) fn by_uid(&self, uid: u32) -> Option<&Arc<Identity>> {
        self.by_uid.get(&uid)
    }

    /// Everybody of the file `text` at `path`; `read_keys` reads the files that it names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(
        text: &[u8],
        path: &Path,
        read_keys: impl FnOnce(&Path) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut known = Self::default();
        let (mut grants, mut calls) = (BTreeMap::new(), BTreeMap::<_, Arc<AtomicUsize>>::new());
        for (tenant, table) in file.tenants {
            let of = |error: &dyn fmt::Display| format!("tenants.{tenant}: {error}");
            check_name(&tenant).map_err(|error| of(&error))?;
            let all_pools = table.pools.contains(ALL);
            let pools = table.pools.iter().filter(|it| *it != ALL).map(|it| PoolId::parse(it));
            let pools = pools.collect::<Result<_, _>>().map_err(|error| of(&error))?;
            let granted = Grants { all_pools, pools, host_names: table.host_names };
            grants.insert(tenant, Arc::new(granted));
        }
        for (name, table) in file.identities {
            let calls = Arc::clone(calls.entry(table.tenant.clone()).or_default());
            known
                .add(&name, table, &grants, calls)
                .map_err(|error| format!("identities.{name}: {error}"))?;
        }
        if let Some(settings) = file.jwt {
            if let Some((key, why)) = settings.check() {
                return Err(format!("jwt.{key}: {why}"));
            }
            let of = |error| format!("jwt.keys: {}: {error}", settings.keys.display());
            // A relative path is meant from the file that names it.
            let keys = path.parent().unwrap_or(Path::new("")).join(&settings.keys);
            let keys = read_keys(&keys).map_err(of)?;
            known.jwt = Some(Verifier::new(&settings, &keys).map_err(of)?);
        }
        Ok(known)
    }

    fn add(
        &mut self,
        name: &str,
        table: IdentityFile,
        grants: &BTreeMap<String, Arc<Grants>>,
        calls: Arc<AtomicUsize>,
    ) -> Result<(), String> {
        check_name(name)?;
        check_name(&table.tenant).map_err(|why| format!("tenant: {why}"))?;
        if table.roles.is_empty() {
            return Err("roles: there must be one of tenant, operator, viewer".to_owned());
        }
        let roles = Roles::of(&table.roles.into_iter().collect::<Vec<_>>());
        let identity = Arc::new(Identity {
            name: name.into(),
            grants: grants.get(&table.tenant).cloned().unwrap_or_default(),
            tenant: Tenant::new(&table.tenant),
            roles,
            calls,
        });
        for token in &table.tokens {
            let hash = token.parse::<TokenHash>().map_err(|error| format!("tokens: {error}"))?;
            once(&mut self.by_token, hash, &identity, "tokens")?;
        }
        for subject in table.subjects {
            once(&mut self.by_subject, subject, &identity, "subjects")?;
        }
        for certificate in table.certificates {
            once(&mut self.by_certificate, certificate, &identity, "certificates")?;
        }
        for uid in table.uids {
            once(&mut self.by_uid, uid, &identity, "uids")?;
        }
        Ok(())
    }
}

/// What names somebody names one.
fn once<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, Arc<Identity>>,
    key: K,
    identity: &Arc<Identity>,
    field: &str,
) -> Result<(), String> {
    match map.insert(key, Arc::clone(identity)) {
        None => Ok(()),
        Some(other) => Err(format!("{field}: one of them is {}'s already", other.name)),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_fine = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control);
    is_fine.then_some(()).ok_or_else(|| format!("a name has 1 to {MAX_NAME_BYTES} bytes"))
}

/// Everybody, as the file has it now.
#[derive(Debug)]
pub(crate) struct Identities(RwLock<Arc<Known>>);

impl Identities {
    /// Those of the file at `path`. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, String> {
        let (known, _) = load(path)?;
        Ok(Arc::new(Self(RwLock::new(Arc::new(known)))))
    }

    /// Everybody, now.
    pub(crate) fn now(&self) -> Arc<Known> {
        Arc::clone(&self.0.read())
    }

    /// Reads the file anew, every `period`, as a task of `tasks`.
    pub(crate) fn follow(
        self: &Arc<Self>,
        path: &Path,
        period: Duration,
        tasks: &hearth_pool::tasks::TaskGroup,
    ) {
        let (identities, path) = (Arc::clone(self), path.to_owned());
        let load = move || load(&path);
        let apply = move |known| *identities.0.write() = Arc::new(known);
        reload::follow("identities", period, tasks, load, apply);
    }
}

fn load(path: &Path) -> Result<(Known, reload::Digest), String> {
    let mut source = Source::default();
    let text = source.read(path)?;
    let known = Known::read(&text, path, |keys| source.read(keys))?;
    Ok((known, source.digest()))
}

#[cfg(test)]
mod tests;
