//! Retries of calls that change something: the same `request_id` with the same request gets
//! the same answer, and a duplicate joins the call under way.
//!
//! Acquires and creates are the pool's to remember; all others are remembered here, for an hour and up to a
//! bound, and kept in the journal, so that a retry after a crash is answered, too. A call that failed is
//! forgotten. The work of a call goes on when its caller leaves, so that a retry finds it done.
//!
//! An answer is kept before it is given. A crash between the work and that leaves the retry to do it again,
//! which finds it done.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hearth_pool::error::Error;
use hearth_pool::ids::RequestId;
use hearth_pool::manager::Manager;
use hearth_pool::replies::Reply;
use hearth_pool::requests::{Fingerprint, REMEMBERED_FOR};
use hearth_pool::tasks::TaskGroup;
use hearth_proto::v1;
use hearth_providers::VmRuntimeError;
use hearth_providers::env::Env;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status};

use crate::auth::Caller;
use crate::call::Call;
use crate::check::Fields;
use crate::status::Refusal;

/// The longest answer that is remembered, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// For how long an answer is waited for. What is asked goes on, and a retry joins it.
const LONGEST_ANSWER: Duration = Duration::from_secs(15 * 60);

/// A request that may carry a `request_id`.
pub(crate) trait Mutation: Message + 'static {
    /// What the request says; empty: nothing.
    fn request_id(&self) -> &str;

    /// The name, or the id, of what it is about; empty: the node.
    fn subject(&self) -> &str;
}

macro_rules! mutations {
    ($($request:ident |$it:ident| $subject:expr;)*) => {
        $(impl Mutation for v1::$request {
            fn request_id(&self) -> &str {
                &self.request_id
            }

            fn subject(&self) -> &str {
                let $it = self;
                $subject
            }
        })*
    };
}

mutations! {
    ReleaseVmRequest |it| &it.name;
    RenewLeaseRequest |it| &it.name;
    StartVmRequest |it| &it.name;
    StopVmRequest |it| &it.name;
    RenameVmRequest |it| &it.name;
    DestroyVmRequest |it| &it.name;
    SnapshotVmRequest |it| &it.name;
    DeleteSnapshotRequest |it| &it.name;
    FreezeVmRequest |it| &it.name;
    DeleteArtifactRequest |it| &it.name;
    DeletePoolRequest |it| &it.name;
    PrewarmPoolRequest |it| &it.name;
    CancelPrewarmRequest |it| &it.name;
    DrainPoolRequest |it| &it.name;
    DeleteTemplateRequest |it| &it.name;
    RollbackTemplateRequest |it| &it.name;
    CreatePoolRequest |it| &it.pool_id;
    UpdatePoolRequest |it| it.pool.as_ref().map_or("", |pool| &pool.name);
    CreateTemplateRequest |it| &it.template_id;
    UpdateTemplateRequest |it| it.template.as_ref().map_or("", |template| &template.name);
    ImportTemplateRequest |it| &it.template_id;
    DrainRequest |_it| "";
    UndrainRequest |_it| "";
    SetLogLevelRequest |it| &it.level;
}

/// Where answers outlive the process.
pub(crate) trait Keep: Send + Sync {
    /// Keeps one.
    fn keep(&self, reply: &Reply);

    /// Forgets one.
    fn forget(&self, key: &str);

    /// All that are kept.
    fn kept(&self) -> Vec<Reply>;
}

impl Keep for Manager {
    fn keep(&self, reply: &Reply) {
        if let Err(error) = self.keep_reply(reply) {
            tracing::warn!(%error, "an answer is not kept: after a crash its retry is a new call");
        }
    }

    fn forget(&self, key: &str) {
        if let Err(error) = self.forget_reply(key) {
            tracing::debug!(%error, "an answer could not be forgotten");
        }
    }

    fn kept(&self) -> Vec<Reply> {
        self.replies().unwrap_or_else(|error| {
            tracing::warn!(%error, "kept answers cannot be read: retries are new calls");
            Vec::new()
        })
    }
}

/// The most answers that are kept over a restart.
const MAX_KEPT: usize = 100_000;

/// Every call remembered.
pub(crate) struct Replays {
    env: Arc<dyn Env>,
    tasks: TaskGroup,
    capacity: usize,
    keep: Arc<dyn Keep>,
    /// What a former life kept was taken up.
    taken_up: OnceLock<()>,
    /// Held for nothing else, and never over what is kept.
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    known: HashMap<Key, Known>,
    oldest_first: VecDeque<(Duration, Key)>,
}

/// Who made the call, of which method, with which request id: as text, for it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key(Arc<str>);

impl Key {
    fn new(caller: &Caller, method: &str, request_id: &RequestId) -> Self {
        // An operator's answers are not its tenant's to see. The tenant's name comes last: it may have
        // anything in it.
        let sees = if caller.scope().is_none() { "all" } else { "own" };
        let (id, tenant) = (request_id.as_str(), caller.tenant.as_str());
        Self(format!("{method}/{id}/{sees}/{tenant}").into())
    }
}

enum Known {
    UnderWay { fingerprint: u64, ends: watch::Receiver<()> },
    Done { fingerprint: u64, answer: Bytes },
}

enum Begin {
    New(Pending),
    UnderWay(watch::Receiver<()>),
    Done(Bytes),
    Reused,
    Full,
}

/// A call under way; dropped, it is forgotten and its duplicates look again.
struct Pending {
    replays: Arc<Replays>,
    key: Key,
    fingerprint: u64,
    _ends: watch::Sender<()>,
    is_done: bool,
}

impl std::fmt::Debug for Replays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replays").field("len", &self.log.lock().known.len()).finish_non_exhaustive()
    }
}

impl Replays {
    /// Remembers at most `capacity` calls; their work belongs to `tasks`.
    pub(crate) fn new(
        env: Arc<dyn Env>,
        tasks: TaskGroup,
        capacity: usize,
        keep: Arc<dyn Keep>,
    ) -> Arc<Self> {
        let (taken_up, log) = (OnceLock::new(), Mutex::default());
        Arc::new(Self { env, tasks, capacity, keep, taken_up, log })
    }

    /// Answers `request` with what `handle` makes of it, once for each request id.
    pub(crate) async fn answer<Q, A, F>(
        self: &Arc<Self>,
        method: &'static str,
        request: Request<Q>,
        handle: impl FnOnce(Call, Q) -> F + Send + 'static,
    ) -> Result<Response<A>, Status>
    where
        Q: Mutation,
        A: Message + Default + 'static,
        F: Future<Output = Result<A, Refusal>> + Send + 'static,
    {
        crate::call::answer(request, |call, request| self.once(method, call, request, handle)).await
    }

    async fn once<Q, A, F>(
        self: &Arc<Self>,
        method: &'static str,
        call: Call,
        request: Q,
        handle: impl FnOnce(Call, Q) -> F + Send + 'static,
    ) -> Result<A, Refusal>
    where
        Q: Mutation,
        A: Message + Default + 'static,
        F: Future<Output = Result<A, Refusal>> + Send + 'static,
    {
        call.is_about(request.subject(), "", request.request_id());
        // One that is no UUID is refused by the handler, with whatever else is wrong.
        let request_id = Fields::default().request_id(request.request_id());
        let pending = match request_id {
            None => None,
            Some(request_id) => {
                let key = Key::new(&call.caller, method, &request_id);
                let bytes = Bytes::from(request.encode_to_vec());
                let fingerprint = Fingerprint::default().part(&bytes).finish();
                match self.look_up(key, request_id, fingerprint).await? {
                    Ok(pending) => Some(pending),
                    Err(answer) => {
                        let decoded = A::decode(answer);
                        return Ok(decoded.map_err(|error| Error::Internal(error.to_string()))?);
                    }
                }
            }
        };
        let (answer, answered) = oneshot::channel();
        self.tasks.spawn_part(tracing::Span::current(), async move {
            let done = handle(call, request).await;
            if let (Ok(done), Some(pending)) = (&done, pending) {
                pending.done(done.encode_to_vec().into());
            }
            // The caller may have left.
            drop(answer.send(done));
        });
        let Ok(answered) = tokio::time::timeout(LONGEST_ANSWER, answered).await else {
            let (what, after) = (method.to_owned(), LONGEST_ANSWER);
            return Err(VmRuntimeError::Timeout { what, after }.into());
        };
        answered.map_err(|_| Error::Internal("the call's task has ended".to_owned()))?
    }

    async fn look_up(
        self: &Arc<Self>,
        key: Key,
        request_id: RequestId,
        fingerprint: u64,
    ) -> Result<Result<Pending, Bytes>, Error> {
        loop {
            match self.begin(key.clone(), fingerprint) {
                Begin::New(pending) => return Ok(Ok(pending)),
                // Its end, good or bad, drops the sender; then it is looked at again.
                Begin::UnderWay(mut ends) => drop(ends.changed().await),
                Begin::Done(answer) => return Ok(Err(answer)),
                Begin::Reused => {
                    return Err(Error::RequestIdReused {
                        request_id: request_id.as_str().to_owned(),
                    });
                }
                Begin::Full => return Err(Error::RequestLogFull),
            }
        }
    }

    fn begin(self: &Arc<Self>, key: Key, fingerprint: u64) -> Begin {
        self.taken_up.get_or_init(|| self.take_up());
        let mut log = self.log.lock();
        let forgotten = log.forget_old(self.env.boot_time(), self.capacity);
        let begun = self.begin_in(&mut log, key, fingerprint);
        drop(log);
        forgotten.iter().for_each(|key| self.keep.forget(&key.0));
        begun
    }

    fn begin_in(self: &Arc<Self>, log: &mut Log, key: Key, fingerprint: u64) -> Begin {
        match log.known.get(&key) {
            Some(
                Known::UnderWay { fingerprint: other, .. } | Known::Done { fingerprint: other, .. },
            ) if *other != fingerprint => Begin::Reused,
            Some(Known::UnderWay { ends, .. }) => Begin::UnderWay(ends.clone()),
            Some(Known::Done { answer, .. }) => Begin::Done(answer.clone()),
            None if log.known.len() >= self.capacity => Begin::Full,
            None => {
                let (sender, ends) = watch::channel(());
                log.known.insert(key.clone(), Known::UnderWay { fingerprint, ends });
                let replays = Arc::clone(self);
                Begin::New(Pending { replays, key, fingerprint, _ends: sender, is_done: false })
            }
        }
    }
}

impl Replays {
    /// Takes up what a former life kept. Its times are of the wall clock, which two lives share.
    fn take_up(&self) {
        let (boot, now) = (self.env.boot_time(), self.env.now());
        let mut kept = self.keep.kept();
        kept.sort_by_key(|reply| reply.time);
        let age = |reply: &Reply| now.duration_since(reply.time).unwrap_or_default();
        let (young, old): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|reply| age(reply) < REMEMBERED_FOR);
        old.iter().for_each(|reply| self.keep.forget(&reply.key));
        let mut log = self.log.lock();
        for reply in young {
            let since = boot.saturating_sub(age(&reply));
            let Some(answer) = from_hex(&reply.answer) else { continue };
            let key = Key(reply.key.into());
            let known = Known::Done { fingerprint: reply.fingerprint, answer };
            log.known.insert(key.clone(), known);
            log.oldest_first.push_back((since, key));
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<Bytes> {
    let digits = text.as_bytes().chunks_exact(2);
    let is_whole = digits.remainder().is_empty();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = digits.map(byte).collect::<Option<Vec<_>>>()?;
    is_whole.then(|| bytes.into())
}

impl Log {
    /// Forgets what is older than it must be, and the oldest where there is no more room; answers what.
    fn forget_old(&mut self, now: Duration, capacity: usize) -> Vec<Key> {
        let mut forgotten = Vec::new();
        while let Some((since, _)) = self.oldest_first.front()
            && (*since + REMEMBERED_FOR <= now || self.known.len() >= capacity)
            && let Some((_, key)) = self.oldest_first.pop_front()
        {
            self.known.remove(&key);
            forgotten.push(key);
        }
        forgotten
    }
}

impl Pending {
    fn done(mut self, answer: Bytes) {
        if answer.len() > MAX_ANSWER_BYTES {
            return;
        }
        self.is_done = true;
        let replays = &self.replays;
        let kept = replays.log.lock().oldest_first.len();
        if kept < MAX_KEPT {
            replays.keep.keep(&Reply {
                key: self.key.0.to_string(),
                fingerprint: self.fingerprint,
                answer: to_hex(&answer),
                time: replays.env.now(),
            });
        }
        let known = Known::Done { fingerprint: self.fingerprint, answer };
        let mut log = self.replays.log.lock();
        log.known.insert(self.key.clone(), known);
        log.oldest_first.push_back((self.replays.env.boot_time(), self.key.clone()));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_done {
            self.replays.log.lock().known.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hearth_providers::env::SeededEnv;

    use super::*;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    fn replays(capacity: usize) -> (Arc<Replays>, Arc<SeededEnv>) {
        let env = Arc::new(SeededEnv::new(1));
        (in_life(&env, capacity, Arc::<Kept>::default()), env)
    }

    fn in_life(env: &Arc<SeededEnv>, capacity: usize, kept: Arc<Kept>) -> Arc<Replays> {
        let clock = Arc::clone(env);
        Replays::new(clock, TaskGroup::new(), capacity, kept)
    }

    /// A journal that is only remembered.
    #[derive(Default)]
    struct Kept(Mutex<HashMap<String, Reply>>);

    impl Keep for Kept {
        fn keep(&self, reply: &Reply) {
            self.0.lock().insert(reply.key.clone(), reply.clone());
        }

        fn forget(&self, key: &str) {
            self.0.lock().remove(key);
        }

        fn kept(&self) -> Vec<Reply> {
            self.0.lock().values().cloned().collect()
        }
    }

    fn stop(name: &str, request_id: &str) -> Request<v1::StopVmRequest> {
        let (name, request_id) = (name.to_owned(), request_id.to_owned());
        Request::new(v1::StopVmRequest { name, request_id, ..Default::default() })
    }

    async fn counted(
        replays: &Arc<Replays>,
        count: &Arc<AtomicUsize>,
        request: Request<v1::StopVmRequest>,
        fails: bool,
    ) -> Result<v1::Vm, Status> {
        let count = Arc::clone(count);
        let handle = move |_: Call, request: v1::StopVmRequest| async move {
            tokio::task::yield_now().await;
            let uid = count.fetch_add(1, Ordering::Relaxed).to_string();
            match fails {
                true => Err(Error::Draining.into()),
                false => Ok(v1::Vm { name: request.name, uid, ..Default::default() }),
            }
        };
        replays.answer("StopVm", request, handle).await.map(Response::into_inner)
    }

    #[tokio::test]
    async fn the_same_request_gets_the_same_answer() {
        let ((replays, env), count) = (replays(10), Arc::default());
        let calls = (0..16).map(|_| counted(&replays, &count, stop("vms/a", ID), false));
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.iter().all(|it| it.as_ref().unwrap().uid == "0"), "one was carried out");
        let other = counted(&replays, &count, stop("vms/b", ID), false).await.unwrap_err();
        assert_eq!(other.code(), tonic::Code::AlreadyExists);
        env.advance(REMEMBERED_FOR);
        assert_eq!(counted(&replays, &count, stop("vms/b", ID), false).await.unwrap().uid, "1");
    }

    #[tokio::test]
    async fn what_failed_or_has_no_id_is_carried_out_again() {
        let ((replays, _), count) = (replays(10), Arc::default());
        counted(&replays, &count, stop("vms/a", ID), true).await.unwrap_err();
        assert_eq!(counted(&replays, &count, stop("vms/a", ID), false).await.unwrap().uid, "1");
        for expected in ["2", "3"] {
            let answer = counted(&replays, &count, stop("vms/a", ""), false).await.unwrap();
            assert_eq!(answer.uid, expected);
        }
    }

    #[tokio::test]
    async fn answers_outlive_the_process_for_as_long_as_they_are_remembered() {
        let (env, kept, count) =
            (Arc::new(SeededEnv::new(1)), Arc::<Kept>::default(), Arc::default());
        let life = || in_life(&env, 10, Arc::clone(&kept));
        counted(&life(), &count, stop("vms/a", ID), false).await.unwrap();
        env.advance(REMEMBERED_FOR / 2);
        assert_eq!(counted(&life(), &count, stop("vms/a", ID), false).await.unwrap().uid, "0");
        let other = counted(&life(), &count, stop("vms/b", ID), false).await.unwrap_err();
        assert_eq!(other.code(), tonic::Code::AlreadyExists);
        env.advance(REMEMBERED_FOR / 2);
        assert_eq!(counted(&life(), &count, stop("vms/a", ID), false).await.unwrap().uid, "1");
        assert_eq!(kept.0.lock().len(), 1, "the older one was forgotten");
    }

    #[test]
    fn bytes_come_back_from_their_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)).unwrap(), bytes);
        assert!(from_hex("0").is_none() && from_hex("0g").is_none());
    }

    #[tokio::test]
    async fn the_oldest_goes_first() {
        let ((replays, _), count) = (replays(2), Arc::default());
        let id = |last: char| format!("{}{last}", &ID[..35]);
        for last in ['1', '2', '3'] {
            counted(&replays, &count, stop("vms/a", &id(last)), false).await.unwrap();
        }
        assert_eq!(
            counted(&replays, &count, stop("vms/a", &id('3')), false).await.unwrap().uid,
            "2"
        );
        assert_eq!(
            counted(&replays, &count, stop("vms/a", &id('1')), false).await.unwrap().uid,
            "3"
        );
    }

    #[tokio::test]
    async fn the_work_goes_on_when_the_caller_leaves() {
        let (replays, _) = replays(10);
        let (release, gate) = oneshot::channel::<()>();
        let handle = move |_: Call, _: v1::StopVmRequest| async move {
            let _ = gate.await;
            Ok(v1::Vm { uid: "done".to_owned(), ..Default::default() })
        };
        let first = replays.answer("StopVm", stop("vms/a", ID), handle);
        let left = tokio::time::timeout(Duration::from_millis(1), first).await;
        assert!(left.is_err(), "the caller has left");
        release.send(()).unwrap();
        let count = Arc::default();
        let retry = counted(&replays, &count, stop("vms/a", ID), false).await.unwrap();
        assert_eq!(retry.uid, "done");
    }
}
