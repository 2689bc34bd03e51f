//! What is committed is kept: when the service has seen that a warm VM has the name that a tenant
//! asked for, then the lease is in the journal, and the VM is that tenant's, whether it was told or
//! not. It is taken back by its tenant, or by time; in a pool that keeps its VMs paused also when
//! the resume that follows fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hearth_providers::{Uid, VmId};

use crate::checker::Open;
use crate::claims::Claims;
use crate::history::{Ask, Who};
use crate::truth::Truth;
use crate::weather::limits;

#[derive(Debug)]
struct Commit {
    /// Whoever may have asked for it.
    of: BTreeSet<Who>,
    called: VmId,
    /// By the shortest of what they asked for.
    lives_until: Duration,
    /// From then on a resume may have taken too long, and the handover be undone.
    doubtful_from: Option<Duration>,
}

/// Every commit that is to be kept.
#[derive(Default)]
pub(crate) struct Kept {
    commits: BTreeMap<Uid, Commit>,
}

impl Kept {
    /// A warm VM has a tenant's name: one of the calls that are `open` has asked for it.
    pub(crate) fn handed<'a>(
        &mut self,
        at: Duration,
        uid: Uid,
        to: &VmId,
        is_paused: bool,
        open: impl Iterator<Item = &'a Open>,
    ) {
        let (mut of, mut ttl) = (BTreeSet::new(), Duration::MAX);
        let mut is_claimable = true;
        let mut is_named = false;
        for call in open {
            let Ask::Acquire(ask) = &call.ask else { continue };
            match &ask.vm_id {
                Some(wanted) if wanted == to => is_named = true,
                Some(_) => continue,
                None if to.as_str().starts_with("vm-") => {}
                None => continue,
            }
            of.insert(call.who);
            ttl = ttl.min(ask.ttl);
            is_claimable &= ask.request_id.is_some() || ask.vm_id.is_some();
        }
        if of.is_empty() || !(is_named || is_claimable) {
            return;
        }
        let doubtful_from = is_paused.then(|| at + limits().verb_timeout);
        let commit = Commit { of, called: to.clone(), lives_until: at + ttl, doubtful_from };
        self.commits.insert(uid, commit);
    }

    pub(crate) fn asked(&mut self, truth: &Truth, who: Who, ask: &Ask) {
        if let Ask::Release { vm_id, uid, by_uid } = ask {
            let named = truth.named(vm_id);
            self.commits.retain(|of, commit| {
                let is_named = named == Some(*of) || commit.called == *vm_id;
                let may = who == Who::Operator || commit.of.contains(&who);
                !(may && if *by_uid { uid == of } else { is_named })
            });
        }
    }

    pub(crate) fn failed(&mut self, verb: &str, vm_id: Option<&VmId>) {
        if verb == "resume" {
            self.commits.retain(|_, commit| {
                commit.doubtful_from.is_none() || Some(&commit.called) != vm_id
            });
        }
    }

    /// What was not undone by then never is.
    pub(crate) fn crashed(&mut self, at: Duration) {
        self.commits.retain(|_, commit| commit.doubtful_from.is_none_or(|from| at < from));
        self.commits.values_mut().for_each(|commit| commit.doubtful_from = None);
    }

    /// A VM was destroyed, or lost its tenant's name.
    pub(crate) fn taken(&mut self, at: Duration, uid: Uid) -> Result<(), String> {
        match self.commits.remove(&uid) {
            Some(commit)
                if at < commit.lives_until && commit.doubtful_from.is_none_or(|from| at < from) =>
            {
                Err(format!("{uid} was committed and is taken: {commit:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is under way: what is kept is a tenant's.
    pub(crate) fn settled(&self, at: Duration, claims: &Claims) -> Result<(), String> {
        let lost = self.commits.iter().find(|(uid, commit)| {
            let is_sure = commit.doubtful_from.is_none() && at < commit.lives_until;
            let is_its = |of: &str| commit.of.iter().any(|who| who.name() == of);
            is_sure && !claims.listed_tenant(**uid).is_some_and(is_its)
        });
        match lost {
            Some((uid, commit)) => Err(format!("{uid} was committed and is lost: {commit:?}")),
            None => Ok(()),
        }
    }
}
