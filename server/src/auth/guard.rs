//! The one way in: who calls is found out, held against the method's rule, and given a place.
//!
//! A call that shows a token is whoever the token is, and nobody when it is not known: it never falls
//! back on the certificate or the user of its connection. Without one it is whom these name. What is
//! refused here has cost its headers and nothing else: no service sees it, and its body is not read.
//!
//! A place is one of a bounded number, of which one tenant never has all, and is held until the call's
//! answer has been sent or dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hearth_pool::error::Error;
use hearth_pool::tenants::Tenants;
use hearth_providers::env::Env;
use http::header::AUTHORIZATION;

use super::identities::{Identities, Known};
use super::rules::Access;
use super::{Caller, Identity};
use crate::listen::peer::{Address, Peer};

/// What comes before a token.
const SCHEME: &[u8] = b"Bearer ";
/// Bytes of a request that count towards no bound: all of what most requests are.
pub(crate) const FREE_BYTES: usize = 16 * 1024;

/// Why a call was turned away before a service saw it.
#[derive(Debug)]
pub(crate) enum Denial {
    /// It is not known who calls, for this reason.
    Unauthenticated(&'static str),
    /// Who calls may not; what it would take.
    Forbidden(&'static str),
    /// There is no place for another call, or no memory for its request.
    Overloaded(&'static str),
    /// Its request did not arrive in time.
    TooSlow,
    /// Its tenant calls too often.
    RateLimited(Error),
}

/// What holds for every call of one server.
pub(crate) struct Guard {
    env: Arc<dyn Env>,
    /// Unset: callers are not told apart.
    identities: Option<Arc<Identities>>,
    /// The user that this process runs as: it could do all that an operator can, anyway.
    own_uid: u32,
    /// Set when some tenant has a rate.
    tenants: Option<Tenants>,
    calls: AtomicUsize,
    max_calls: usize,
    max_calls_per_tenant: usize,
    buffered: AtomicUsize,
    max_buffered: usize,
    /// How long a request may take to arrive.
    pub(crate) request_timeout: Duration,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Guard {
    /// One for callers that `identities` tells apart, or that are all operators without.
    pub(crate) fn new(
        env: Arc<dyn Env>,
        identities: Option<Arc<Identities>>,
        tenants: &Tenants,
        settings: &crate::config::Grpc,
    ) -> Arc<Self> {
        Arc::new(Self {
            env,
            identities,
            own_uid: rustix::process::geteuid().as_raw(),
            tenants: tenants.have_request_rates().then(|| tenants.clone()),
            calls: AtomicUsize::new(0),
            max_calls: settings.max_calls,
            max_calls_per_tenant: settings.max_calls_per_tenant,
            buffered: AtomicUsize::new(0),
            max_buffered: settings.max_buffered_bytes,
            request_timeout: settings.request_timeout,
        })
    }

    /// Callers are told apart.
    pub(crate) const fn tells_apart(&self) -> bool {
        self.identities.is_some()
    }

    /// Finds out who makes `request` and whether it may by a rule, and notes it in the request.
    ///
    /// # Errors
    /// `Unauthenticated`, `Forbidden`, `RateLimited`.
    pub(crate) fn check<B>(
        &self,
        access: Access,
        request: &mut http::Request<B>,
    ) -> Result<(), Denial> {
        let peer = request.extensions().get::<Arc<Peer>>();
        peer.iter().for_each(|peer| peer.has_called());
        let caller = match (request.extensions().get::<Caller>(), &self.identities) {
            (Some(caller), _) => caller.clone(),
            // Everybody is an operator, and services know that by themselves.
            (None, None) => return self.check_rate(&Caller::of(request.extensions()), peer),
            (None, Some(_)) if access == Access::Anyone => {
                // Where callers are told apart, one that is not is nobody, and never anybody.
                request.extensions_mut().insert(Caller::nobody());
                return Ok(());
            }
            (None, Some(identities)) => {
                match self.identify(&identities.now(), request.headers(), peer) {
                    Ok(identity) => Caller::known(identity),
                    Err(why) => {
                        peer.iter().for_each(|peer| peer.has_failed());
                        return Err(Denial::Unauthenticated(why));
                    }
                }
            }
        };
        let checked = match access.allows(caller.roles()) {
            true => self.check_rate(&caller, peer),
            false => Err(Denial::Forbidden(access.takes())),
        };
        let sees_all = access.only_reads() && caller.roles().has(super::Role::Viewer);
        request.extensions_mut().insert(if sees_all { caller.seeing_all() } else { caller });
        checked
    }

    fn check_rate(&self, caller: &Caller, peer: Option<&Arc<Peer>>) -> Result<(), Denial> {
        let Some(tenants) = &self.tenants else { return Ok(()) };
        let checked = tenants.check_request_rate(&caller.tenant, self.env.boot_time());
        checked.map_err(|error| {
            peer.iter().for_each(|peer| peer.has_wasted());
            Denial::RateLimited(error)
        })
    }

    fn identify(
        &self,
        known: &Known,
        headers: &http::HeaderMap,
        peer: Option<&Arc<Peer>>,
    ) -> Result<Arc<Identity>, &'static str> {
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        if let Some(first) = shown.next() {
            if shown.next().is_some() {
                return Err("there are two authorization headers");
            }
            let token = first.as_bytes();
            let token = token.split_at_checked(SCHEME.len());
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME));
            let (_, token) = token.ok_or("the authorization is no bearer token")?;
            let now = self.env.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            return known.by_token(token, now);
        }
        let Some(peer) = peer else { return Err("there is no token") };
        if let Some(identity) = known.by_certificate(&peer.names) {
            return Ok(Arc::clone(identity));
        }
        match peer.address {
            Address::User(uid) => match known.by_uid(uid) {
                Some(identity) => Ok(Arc::clone(identity)),
                // They could read the state directory and end the server.
                None if uid == 0 || uid == self.own_uid => Ok(operator()),
                None => Err("there is no token, and the user of the socket is not known"),
            },
            Address::Ip(_) if peer.names.is_empty() => Err("there is no token and no certificate"),
            Address::Ip(_) => Err("there is no token, and the certificate is nobody's"),
        }
    }

    /// A place for one more call, of whom [`Self::check`] found.
    ///
    /// # Errors
    /// `Overloaded`.
    pub(crate) fn place(self: &Arc<Self>, found: &http::Extensions) -> Result<Place, Denial> {
        let take = |taken: &AtomicUsize, most: usize, why: &'static str| {
            if taken.fetch_add(1, Ordering::Relaxed) < most {
                return Ok(());
            }
            taken.fetch_sub(1, Ordering::Relaxed);
            Err(Denial::Overloaded(why))
        };
        take(&self.calls, self.max_calls, "as many calls are under way as may be")?;
        let mut place = Place { guard: Arc::clone(self), of_tenant: None, peer: None };
        if let Some(caller) = found.get::<Caller>() {
            let why = "as many calls of the tenant are under way as may be";
            take(caller.calls(), self.max_calls_per_tenant, why)?;
            place.of_tenant = Some(Arc::clone(caller.calls()));
        }
        place.peer = found.get::<Arc<Peer>>().cloned();
        place.peer.iter().for_each(|peer| peer.has_begun());
        Ok(place)
    }

    /// Room for `bytes` more of a request.
    ///
    /// # Errors
    /// `Overloaded`.
    pub(crate) fn take_room(&self, bytes: usize) -> Result<(), Denial> {
        let before = self.buffered.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.max_buffered {
            self.give_room(bytes);
            return Err(Denial::Overloaded("requests under way take all the memory that they may"));
        }
        Ok(())
    }

    /// Gives room back.
    pub(crate) fn give_room(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Whoever runs the server, or could.
fn operator() -> Arc<Identity> {
    use std::sync::LazyLock;
    static LOCAL: LazyLock<Arc<Identity>> = LazyLock::new(|| {
        let tenant = hearth_pool::ids::Tenant::anonymous();
        let roles = super::Roles::of(&[super::Role::Operator]);
        let (grants, calls) = (Arc::default(), Arc::default());
        Arc::new(Identity { name: "local".into(), tenant, roles, grants, calls })
    });
    Arc::clone(&LOCAL)
}

/// One call's place; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Place {
    guard: Arc<Guard>,
    of_tenant: Option<Arc<AtomicUsize>>,
    peer: Option<Arc<Peer>>,
}

impl Place {
    /// Its caller has left before it was answered.
    pub(crate) fn was_left(&self) {
        self.peer.iter().for_each(|peer| peer.has_left());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guard.calls.fetch_sub(1, Ordering::Relaxed);
        if let Some(calls) = &self.of_tenant {
            calls.fetch_sub(1, Ordering::Relaxed);
        }
        self.peer.iter().for_each(|peer| peer.has_ended());
    }
}

#[cfg(test)]
mod tests;
