use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_pool::tasks::TaskGroup;
use hearth_proto::v1;
use hearth_providers::env::SeededEnv;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::feed::Sighting;
use super::hub::Source;
use super::{Event, Hub, View, Watching};
use crate::status::Refusal;

/// A few VMs that a test changes.
#[derive(Default)]
struct Fake {
    there: Mutex<BTreeMap<String, v1::Vm>>,
    noted: Mutex<Vec<String>>,
    bell: Notify,
}

impl Source for Arc<Fake> {
    type Item = v1::Vm;

    const LOOK: Duration = Duration::from_secs(5);

    fn begin(&self) {}

    fn end(&self) {}

    async fn noted(&self) {
        self.bell.notified().await;
    }

    fn take_noted(&self) -> (Vec<Sighting<v1::Vm>>, bool) {
        let noted = std::mem::take(&mut *self.noted.lock());
        let look = |key: String| self.one(&key).map_or(Sighting::Gone(key), Sighting::Is);
        (noted.into_iter().map(look).collect(), false)
    }

    fn all(&self) -> Vec<v1::Vm> {
        self.there.lock().values().cloned().collect()
    }

    fn one(&self, key: &str) -> Option<v1::Vm> {
        self.there.lock().get(key).cloned()
    }
}

struct Rig {
    source: Arc<Fake>,
    hub: Arc<Hub<Arc<Fake>>>,
    tasks: TaskGroup,
    ending: CancellationToken,
}

impl Rig {
    fn new(max_lag: usize, uids: &[&str]) -> Self {
        let (source, tasks) = (Arc::<Fake>::default(), TaskGroup::new());
        let ending = tasks.stopping().child_token();
        let env = Arc::new(SeededEnv::new(7));
        let hub = Hub::new(Arc::clone(&source), tasks.clone(), env, ending.clone(), max_lag);
        let rig = Self { source, hub, tasks, ending };
        uids.iter().for_each(|uid| rig.unnoted(uid, "t"));
        rig
    }

    fn unnoted(&self, uid: &str, tenant: &str) {
        let (uid, tenant) = (uid.to_owned(), tenant.to_owned());
        let vm = v1::Vm { uid: uid.clone(), tenant, ..Default::default() };
        self.source.there.lock().insert(uid, vm);
    }

    fn set(&self, uid: &str, tenant: &str) {
        self.unnoted(uid, tenant);
        self.note(uid);
    }

    fn remove(&self, uid: &str) {
        self.source.there.lock().remove(uid);
        self.note(uid);
    }

    fn note(&self, uid: &str) {
        self.source.noted.lock().push(uid.to_owned());
        self.source.bell.notify_one();
    }

    async fn begin(&self, tenant: &'static str, token: &str) -> Result<Reader, Refusal> {
        let sees = move |vm: &v1::Vm| tenant.is_empty() || vm.tenant == tenant;
        let heartbeat = Duration::from_secs(10);
        let view = View { list: 1, sees: Box::new(sees), heartbeat };
        Watching::begin(&self.hub, view, token).await.map(Reader)
    }

    async fn end(self) {
        self.tasks.stop();
        assert!(self.tasks.join(Duration::from_secs(60)).await, "its work ends");
    }
}

struct Reader(Watching<Arc<Fake>>);

impl Reader {
    /// The next event, as `+uid`, `~uid`, `-uid`, `synced` or `alive`; and its token.
    async fn next(&mut self) -> (String, String) {
        let (event, token) = self.0.next().await.expect("it goes on").expect("it goes on");
        let told = match event {
            Event::Added(vm) => format!("+{}", vm.uid),
            Event::Changed(vm) => format!("~{}", vm.uid),
            Event::Deleted(vm) => format!("-{}", vm.uid),
            Event::Synced => "synced".to_owned(),
            Event::Heartbeat => "alive".to_owned(),
        };
        (told, token)
    }

    async fn told<const N: usize>(&mut self, expected: [&str; N]) -> String {
        let mut last = String::new();
        for expected in expected {
            let (told, token) = self.next().await;
            assert_eq!(told, expected);
            last = token;
        }
        last
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_comes_first_and_then_what_becomes_of_it() {
    let rig = Rig::new(100, &["a", "b"]);
    let mut reader = rig.begin("", "").await.unwrap();
    reader.told(["+a", "+b", "synced"]).await;
    rig.set("c", "t");
    reader.told(["+c"]).await;
    rig.set("c", "u");
    reader.told(["~c"]).await;
    rig.remove("a");
    reader.told(["-a"]).await;
    // What nobody noted is found by a look at everything.
    rig.unnoted("d", "t");
    reader.told(["+d"]).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_sees_a_part_is_told_when_something_enters_or_leaves_it() {
    let rig = Rig::new(100, &["a"]);
    rig.unnoted("b", "u");
    let mut reader = rig.begin("u", "").await.unwrap();
    reader.told(["+b", "synced"]).await;
    rig.set("a", "u");
    reader.told(["+a"]).await;
    rig.set("b", "t");
    reader.told(["-b"]).await;
    rig.remove("b");
    rig.set("a", "t");
    reader.told(["-a"]).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_heartbeats() {
    let rig = Rig::new(100, &[]);
    let mut reader = rig.begin("", "").await.unwrap();
    let begun = tokio::time::Instant::now();
    reader.told(["synced", "alive", "alive"]).await;
    assert_eq!(begun.elapsed().as_secs(), 20);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_after_any_of_its_messages() {
    let rig = Rig::new(100, &["a", "b", "c"]);
    let mut first = rig.begin("", "").await.unwrap();
    let listed_one = first.told(["+a"]).await;
    let synced = first.told(["+b", "+c", "synced"]).await;
    rig.set("a", "u");
    let changed = first.told(["~a"]).await;
    rig.remove("c");
    rig.set("d", "t");
    first.told(["-c", "+d"]).await;
    drop(first);
    // Of what was listed what became of it; the rest as it is.
    let mut second = rig.begin("", &listed_one).await.unwrap();
    let replayed = second.told(["~a"]).await;
    let relisted = second.told(["+b"]).await;
    second.told(["+d", "synced"]).await;
    rig.begin("", &replayed).await.unwrap().told(["+b", "+d", "synced"]).await;
    rig.begin("", &relisted).await.unwrap().told(["+d", "synced"]).await;
    rig.begin("", &synced).await.unwrap().told(["~a", "-c", "+d"]).await;
    let mut last = rig.begin("", &changed).await.unwrap();
    let alive = last.told(["-c", "+d", "alive"]).await;
    rig.remove("d");
    rig.begin("", &alive).await.unwrap().told(["-d"]).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_falls_behind_is_cut_off_and_holds_nobody_up() {
    let rig = Rig::new(4, &["a"]);
    let mut slow = rig.begin("", "").await.unwrap();
    let mut quick = rig.begin("", "").await.unwrap();
    let token = slow.told(["+a", "synced"]).await;
    quick.told(["+a", "synced"]).await;
    for tenant in ["1", "2", "3", "4", "5"] {
        rig.set("a", tenant);
        quick.told(["~a"]).await;
    }
    assert!(matches!(slow.0.next().await, Err(Refusal::WatchTooSlow)));
    let resumed = rig.begin("", &token).await.err();
    assert!(matches!(resumed, Some(Refusal::ResumeTokenExpired)), "{resumed:?}");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_is_kept_for_a_while_after_the_last_watch_and_its_tokens_with_it() {
    let rig = Rig::new(100, &["a"]);
    let mut reader = rig.begin("", "").await.unwrap();
    let token = reader.told(["+a", "synced"]).await;
    drop(reader);
    tokio::time::sleep(Duration::from_secs(50)).await;
    rig.set("a", "u");
    rig.begin("", &token).await.unwrap().told(["~a"]).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    let refused = rig.begin("", &token).await.err();
    assert!(matches!(refused, Some(Refusal::ResumeTokenExpired)), "{refused:?}");
    rig.begin("", "").await.unwrap().told(["+a", "synced"]).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn watches_end_with_the_server() {
    let rig = Rig::new(100, &[]);
    let mut reader = rig.begin("", "").await.unwrap();
    reader.told(["synced"]).await;
    rig.ending.cancel();
    assert!(reader.0.next().await.unwrap().is_none());
    drop(reader);
    rig.end().await;
}
