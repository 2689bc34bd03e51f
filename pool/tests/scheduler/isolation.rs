//! One pool whose restores hang and one whose restores fail, beside ten that are well: real threads,
//! as a call that hangs holds one.

use hearth_pool::config::Limits;
use hearth_pool::env::{Env, SystemEnv};
use hearth_pool::ids::{PoolId, TemplateId};
use hearth_pool::jobs::Jobs;
use hearth_pool::journal::Journal;
use hearth_pool::manager::Manager;
use hearth_pool::pool::{PoolConfig, Provider};
use hearth_pool::tasks::TaskGroup;
use hearth_pool::templates::Template;
use hearth_providers::VmRuntime;
use hearth_providers::faulty::{Call, Fault, Faulty, FaultyControl, When};
use hearth_providers::memory::MemoryBackend;

use super::*;

fn provider(name: &str, env: &Arc<dyn Env>) -> (Arc<Provider>, FaultyControl) {
    let memory = Arc::new(MemoryBackend::provider(name, Arc::clone(env)));
    let (faulty, faults) = Faulty::new(memory, Arc::clone(env));
    let runtime: Arc<dyn VmRuntime> = Arc::new(faulty);
    let kind = "memory".to_owned();
    (Arc::new(Provider { name: name.into(), kind, runtime }), faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_and_a_broken_template_starve_nobody() {
    const WELL: usize = 10;
    const DEPTH: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let (well, _faults) = provider("well", &env);
    let (slow, slow_faults) = provider("slow", &env);
    let (broken, broken_faults) = provider("broken", &env);
    let tasks = TaskGroup::new();
    // Even after it has given up on those that hang.
    let limits = Limits { restore_timeout: Duration::from_secs(1), ..Limits::default() };
    let jobs = Jobs::on_threads(tasks.clone(), limits.places());
    let journal = Journal::open(&dir.path().join("journal"), &*env).unwrap();
    let providers = vec![well, slow, broken];
    let manager = Manager::new(env, limits, journal, jobs, tasks.clone(), providers);
    let node = Node { manager, tasks };
    node.start(false).await.unwrap();
    for id in ["well", "slow", "broken"] {
        let template = Template { provider: id.to_owned(), ..template(id) };
        let operation = node.create_template(template, false).await.unwrap();
        node.operations().wait(&operation, Duration::from_secs(60)).await.unwrap();
    }
    slow_faults.add(Call::Restore, When::Always, Fault::Hang);
    broken_faults.add(Call::Restore, When::Always, Fault::Fail("backend"));
    let make = |id: String, template: &str, depth: usize| {
        let template = TemplateId::parse(template).unwrap();
        let config = PoolConfig { template, max_parallel_restores: 64, ..pool(&id, depth) };
        node.create_pool(config, false)
    };
    make("slow".to_owned(), "slow", 100).await.unwrap();
    make("broken".to_owned(), "broken", 100).await.unwrap();
    for number in 0..WELL {
        make(format!("well-{number}"), "well", DEPTH).await.unwrap();
    }
    for _ in 0..20 {
        for number in 0..WELL {
            let id = format!("well-{number}");
            let pool = node.pool_of(&id);
            // Bounded by `until`: it would never be full if the others had every place.
            node.until("it is full", || pool.status().warm == DEPTH).await;
            for _ in 0..DEPTH {
                let pool = PoolId::parse(&id).unwrap();
                let got = node.take(AcquireRequest { pool, ..warm_only() }).await.unwrap();
                node.release_named(&got.lease.held().vm_id).await.unwrap();
            }
        }
    }
    let slow = node.pool_of("slow").status();
    assert_eq!(slow.warm, 0, "{slow:?}");
    let broken = node.pool_of("broken");
    node.until("its breaker opens", || broken.status().breaker_open).await;
    slow_faults.clear();
    let pool = node.pool_of("slow");
    node.until("what hung goes on", || pool.status().warm > 0).await;
    node.tasks.stop();
}
