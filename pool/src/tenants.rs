//! What each tenant may have: a share, a quota, a rate, and warm VMs that nobody else gets.
//!
//! Settings come from the configuration; a tenant that is not named there has the defaults. What
//! is counted is kept only as long as it says something: a tenant without VMs whose rate has
//! recovered is forgotten. VMs that a tenant has are never taken from it, also not when its quota
//! is lowered: it gets no more until it is below.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::bucket::{Rate, TokenBucket};
use crate::error::{Error, Result};
use crate::ids::{PoolId, Tenant};
use crate::ledger::Floors;
use crate::line::MAX_WEIGHT;

/// How many tenants may be counted before those that need not be are forgotten.
const SWEEP_AT: usize = 1024;

/// What one tenant may have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSettings {
    /// Its share of VMs that several tenants wait for, relative to the others'; 1 to 1000.
    pub weight: u32,
    /// How many VMs it may have at once; unset: any number.
    pub max_vms: Option<usize>,
    /// How often it may acquire; unset: as often as it likes.
    pub acquire_rate: Option<Rate>,
    /// How often it may call, whatever for; unset: as often as it likes.
    pub request_rate: Option<Rate>,
    /// Warm VMs that are kept for it, by pool.
    pub warm_floors: BTreeMap<PoolId, usize>,
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            weight: 1,
            max_vms: None,
            acquire_rate: None,
            request_rate: None,
            warm_floors: BTreeMap::new(),
        }
    }
}

impl TenantSettings {
    /// What is wrong with it: the key and why.
    pub fn check(&self) -> Option<(&'static str, &'static str)> {
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            return Some(("weight", "it must be 1 to 1000"));
        }
        let rates = [("acquire_rate", &self.acquire_rate), ("request_rate", &self.request_rate)];
        let mut wrong =
            rates.into_iter().filter_map(|(key, rate)| Some((key, rate.as_ref()?.check()?)));
        wrong.next()
    }
}

/// What all tenants may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantsSettings {
    /// Tenants that are not named.
    pub default: TenantSettings,
    /// Those that are.
    pub named: BTreeMap<String, TenantSettings>,
}

#[derive(Debug, Default)]
struct Count {
    vms: usize,
    bucket: Option<TokenBucket>,
    calls: Option<TokenBucket>,
}

impl Count {
    /// Nothing is known of whoever has it that would not be known anew.
    fn says_nothing(&self, settings: &TenantSettings, now: Duration) -> bool {
        let is_full = |bucket: Option<TokenBucket>, rate: Option<Rate>| match (bucket, rate) {
            (Some(bucket), Some(rate)) => bucket.is_full(rate, now),
            _ => true,
        };
        self.vms == 0
            && is_full(self.bucket, settings.acquire_rate)
            && is_full(self.calls, settings.request_rate)
    }
}

/// What tenants may have, and have. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    settings: Arc<TenantsSettings>,
    counts: Arc<Mutex<HashMap<Tenant, Count>>>,
}

impl Tenants {
    /// As `settings` has it.
    pub fn new(settings: TenantsSettings) -> Self {
        Self { settings: Arc::new(settings), counts: Arc::default() }
    }

    /// The settings of `tenant`.
    pub fn settings(&self, tenant: &Tenant) -> &TenantSettings {
        self.settings.named.get(tenant.as_str()).unwrap_or(&self.settings.default)
    }

    /// The warm VMs of `pool` that are kept for tenants.
    pub fn floors(&self, pool: &PoolId) -> Floors {
        let floors = self.settings.named.iter().filter_map(|(tenant, settings)| {
            let floor = settings.warm_floors.get(pool).copied()?;
            Some((Tenant::new(tenant), floor))
        });
        Floors::new(floors.collect())
    }

    /// Counts an acquire of `tenant` at `now`, in boot time.
    ///
    /// # Errors
    /// `RateLimited`, with the time until the next is let through.
    pub fn check_rate(&self, tenant: &Tenant, now: Duration) -> Result<()> {
        let Some(rate) = self.settings(tenant).acquire_rate else { return Ok(()) };
        self.take(tenant, rate, now, |count| &mut count.bucket)
    }

    /// Whether some tenant's calls are counted at all.
    pub fn have_request_rates(&self) -> bool {
        let mut all = self.settings.named.values().chain([&self.settings.default]);
        all.any(|settings| settings.request_rate.is_some())
    }

    /// Counts a call of `tenant` at `now`, in boot time.
    ///
    /// # Errors
    /// `RateLimited`, with the time until the next is let through.
    pub fn check_request_rate(&self, tenant: &Tenant, now: Duration) -> Result<()> {
        let Some(rate) = self.settings(tenant).request_rate else { return Ok(()) };
        self.take(tenant, rate, now, |count| &mut count.calls)
    }

    fn take(
        &self,
        tenant: &Tenant,
        rate: Rate,
        now: Duration,
        bucket: impl Fn(&mut Count) -> &mut Option<TokenBucket>,
    ) -> Result<()> {
        let mut counts = self.counts.lock();
        self.sweep(&mut counts, now);
        let count = counts.entry(tenant.clone()).or_default();
        let bucket = bucket(count).get_or_insert_with(|| TokenBucket::full(rate, now));
        let limited =
            |retry_after| Error::RateLimited { tenant: tenant.as_str().to_owned(), retry_after };
        bucket.take(rate, now).map_err(limited)
    }

    /// Forgets whoever has nothing and could do all as if it never had.
    fn sweep(&self, counts: &mut HashMap<Tenant, Count>, now: Duration) {
        if counts.len() >= SWEEP_AT && counts.len().is_multiple_of(SWEEP_AT) {
            counts.retain(|tenant, count| !count.says_nothing(self.settings(tenant), now));
        }
    }

    /// A place for one more VM of `tenant`; dropped, it is free.
    ///
    /// # Errors
    /// `QuotaExceeded`.
    pub fn take_place(&self, tenant: &Tenant) -> Result<Place> {
        let Some(max_vms) = self.settings(tenant).max_vms else { return Ok(Place(None)) };
        let mut counts = self.counts.lock();
        let count = counts.entry(tenant.clone()).or_default();
        if count.vms >= max_vms {
            return Err(Error::QuotaExceeded { tenant: tenant.as_str().to_owned(), max_vms });
        }
        count.vms += 1;
        Ok(Place(Some((self.clone(), tenant.clone()))))
    }

    /// The place of a VM that `tenant` has already, whatever its quota is now.
    pub fn keep_place(&self, tenant: &Tenant) -> Place {
        self.counts.lock().entry(tenant.clone()).or_default().vms += 1;
        Place(Some((self.clone(), tenant.clone())))
    }

    fn free(&self, tenant: &Tenant) {
        let mut counts = self.counts.lock();
        let Some(count) = counts.get_mut(tenant) else { return };
        count.vms = count.vms.saturating_sub(1);
        if count.vms == 0 && count.bucket.is_none() && count.calls.is_none() {
            counts.remove(tenant);
        }
    }
}

/// The right to one VM; dropped, it is given back.
#[derive(Debug, Default)]
pub struct Place(Option<(Tenants, Tenant)>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((tenants, tenant)) = self.0.take() {
            tenants.free(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(settings: TenantSettings) -> Tenants {
        Tenants::new(TenantsSettings {
            named: BTreeMap::from([("a".to_owned(), settings)]),
            ..TenantsSettings::default()
        })
    }

    #[test]
    fn a_quota_counts_what_is_had_and_frees_what_is_given_back() {
        let tenants = tenants(TenantSettings { max_vms: Some(2), ..TenantSettings::default() });
        let (a, b) = (Tenant::new("a"), Tenant::new("b"));
        let first = tenants.take_place(&a).unwrap();
        let _second = tenants.take_place(&a).unwrap();
        assert!(matches!(tenants.take_place(&a), Err(Error::QuotaExceeded { max_vms: 2, .. })));
        assert!(tenants.take_place(&b).is_ok(), "another tenant's");
        drop(first);
        let _third = tenants.take_place(&a).unwrap();
        let kept = tenants.keep_place(&a);
        assert!(tenants.take_place(&a).is_err());
        drop(kept);
        assert!(tenants.take_place(&a).is_err(), "still full");
    }

    #[test]
    fn a_rate_is_each_tenants_own() {
        let rate = Rate { per_second: 1.0, burst: 2 };
        let settings = TenantSettings { acquire_rate: Some(rate), ..TenantSettings::default() };
        let tenants = tenants(settings);
        let (a, b, now) = (Tenant::new("a"), Tenant::new("b"), Duration::from_secs(9));
        assert!(tenants.check_rate(&a, now).is_ok() && tenants.check_rate(&a, now).is_ok());
        let Err(Error::RateLimited { retry_after, .. }) = tenants.check_rate(&a, now) else {
            panic!("a third at once")
        };
        assert!(tenants.check_rate(&a, now + retry_after).is_ok());
        assert!((0..9).all(|_| tenants.check_rate(&b, now).is_ok()));
    }

    #[test]
    fn calls_have_a_rate_beside_that_of_acquires() {
        let rate = Rate { per_second: 1.0, burst: 1 };
        let settings = TenantSettings { request_rate: Some(rate), ..TenantSettings::default() };
        let tenants = tenants(settings);
        let (a, now) = (Tenant::new("a"), Duration::from_secs(9));
        assert!(tenants.have_request_rates() && !Tenants::default().have_request_rates());
        assert!(tenants.check_request_rate(&a, now).is_ok());
        assert!(tenants.check_request_rate(&a, now).is_err());
        assert!(tenants.check_rate(&a, now).is_ok(), "acquires have none");
        let later = now + Duration::from_secs(2);
        assert!(!tenants.counts.lock()[&a].says_nothing(tenants.settings(&a), now));
        assert!(tenants.counts.lock()[&a].says_nothing(tenants.settings(&a), later));
    }

    #[test]
    fn who_has_nothing_is_forgotten() {
        let rate = Rate { per_second: 1000.0, burst: 2 };
        let default = TenantSettings { acquire_rate: Some(rate), ..TenantSettings::default() };
        let settings = TenantsSettings { default, ..TenantsSettings::default() };
        let tenants = Tenants::new(settings);
        for number in 0..10 * SWEEP_AT {
            let now = Duration::from_millis(10 * number as u64);
            tenants.check_rate(&Tenant::new(&format!("t{number}")), now).unwrap();
        }
        assert!(tenants.counts.lock().len() <= SWEEP_AT);
    }
}
