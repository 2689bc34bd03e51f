//! What a trace has.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hearth_proto::v1::pool::{Overflow, WarmState};
use hearth_proto::v1::{self, AcquireVmRequest, AcquireVmResponse};
use hearth_proto::{Credentials, HearthClient, TraceContext};
use hearth_server::auth::token::TokenHash;

use crate::collector::Collector;
use crate::hearth::{Answer, Hearth, Host, Outcome};
use crate::running::cases;
use crate::tree::Tree;

cases! {
    false an_acquire_is_one_tree_of_its_callers_trace,
    true a_cold_acquire_of_qemu_shows_every_step_of_its_restore,
    false what_the_caller_says_of_its_trace_is_heeded_if_it_makes_sense,
    false lines_of_the_log_have_the_call_and_its_trace,
    false no_token_is_in_a_span_or_the_log,
}

pub(crate) const ACQUIRE: &str = "hearth.v1.VmService/AcquireVm";
const RELEASE: &str = "hearth.v1.VmService/ReleaseVm";

pub(crate) fn from(pool: &str) -> AcquireVmRequest {
    AcquireVmRequest { pool: format!("pools/{pool}"), ..AcquireVmRequest::default() }
}

/// Makes a pool of the default template.
pub(crate) async fn make_pool(
    hearth: &Hearth,
    id: &str,
    depth: i32,
    warm_state: WarmState,
) -> Outcome {
    let sizing = v1::sizing::Mode::Fixed(v1::sizing::Fixed { depth });
    let pool = v1::Pool {
        template: "templates/default".to_owned(),
        sizing: Some(v1::Sizing { mode: Some(sizing) }),
        warm_state: warm_state.into(),
        ..v1::Pool::default()
    };
    let request =
        v1::CreatePoolRequest { pool_id: id.to_owned(), pool: Some(pool), ..Default::default() };
    hearth.client.pools.clone().create_pool(request).await?;
    let warm = format!("hearth_warm_vms{{pool=\"{id}\"}}");
    hearth.until("it is full", async || hearth.metric(&warm).await == Some(f64::from(depth))).await
}

/// Acquires as a part of the trace `number`, and answers what came of it.
pub(crate) async fn followed(
    hearth: &Hearth,
    collector: &Collector,
    number: u8,
    request: AcquireVmRequest,
) -> Answer<(AcquireVmResponse, Tree)> {
    let context = TraceContext::new(u128::from(number), u64::from(number) + 1, true);
    let got = context.scope(hearth.acquire(request)).await?;
    let tree = collector.tree(|span| is_call(span, number, ACQUIRE)).await?;
    println!("{tree}");
    assert_eq!(tree.span.parent_span_id, (u64::from(number) + 1).to_be_bytes());
    assert!(tree.is_nested(), "something is not within what it is a part of");
    assert_eq!(tree.said("rpc.grpc.status_code"), "0");
    let acquire = tree.find("acquire").ok_or("no acquire")?;
    let vm = got.vm.as_ref().ok_or("no vm")?;
    assert_eq!(acquire.said("uid"), vm.uid);
    assert_eq!(acquire.said("outcome"), "ok");
    Ok((got, tree))
}

fn is_call(span: &opentelemetry_proto::tonic::trace::v1::Span, trace: u8, method: &str) -> bool {
    span.trace_id == u128::from(trace).to_be_bytes() && span.name == method
}

async fn an_acquire_is_one_tree_of_its_callers_trace() -> Outcome {
    let collector = Collector::start()?;
    let host = Host::configured("memory", 2, |_| Ok(collector.settings()))?;
    let hearth = host.start().await?;
    make_pool(&hearth, "empty", 0, WarmState::Running).await?;
    make_pool(&hearth, "paused", 1, WarmState::Paused).await?;

    let (got, warm) = followed(&hearth, &collector, 1, from("default")).await?;
    assert_eq!(warm.shape(), format!("{ACQUIRE}(acquire(select journal rename))"));
    let acquire = warm.find("acquire").ok_or("no acquire")?;
    assert_eq!((acquire.said("pool"), acquire.said("source")), ("default".into(), "warm".into()));

    // In line, for a restore that is begun for it.
    let (_, cold) = followed(&hearth, &collector, 2, from("empty")).await?;
    let restore = "restore(provider probe prepare)";
    let expected = format!("{ACQUIRE}(acquire(select queue({restore}) journal rename))");
    assert_eq!(cold.shape(), expected);
    let acquire = cold.find("acquire").ok_or("no acquire")?;
    assert_eq!((acquire.said("pool"), acquire.said("source")), ("empty".into(), "cold".into()));
    let restored = cold.find("restore").ok_or("no restore")?;
    assert_eq!(restored.said("uid"), acquire.said("uid"), "it got what was restored for it");

    // One that is restored for it alone, and one that is resumed: both go on in tasks of their own.
    let only = AcquireVmRequest { overflow: Overflow::ColdOnly.into(), ..from("default") };
    let (_, dedicated) = followed(&hearth, &collector, 3, only).await?;
    let expected = format!("{ACQUIRE}(acquire(restore(provider probe) journal))");
    assert_eq!(dedicated.shape(), expected);
    let (_, resumed) = followed(&hearth, &collector, 4, from("paused")).await?;
    let expected = format!("{ACQUIRE}(acquire(select journal rename resume journal))");
    assert_eq!(resumed.shape(), expected);

    // What the pool restores for itself is nobody's call.
    let refill = collector.tree(|span| span.name == "restore" && span.parent_span_id.is_empty());
    assert_eq!(refill.await?.shape(), "restore(provider probe prepare)");

    let vm = got.vm.ok_or("no vm")?;
    TraceContext::new(5, 6, true).scope(hearth.client.release(&vm)).await?;
    let release = collector.tree(|span| is_call(span, 5, RELEASE)).await?;
    assert_eq!(release.shape(), format!("{RELEASE}(release(journal rename))"));
    let refused = AcquireVmRequest { overflow: Overflow::WarmOnly.into(), ..from("empty") };
    TraceContext::new(6, 7, true).scope(hearth.acquire(refused)).await.unwrap_err();
    let refused = collector.tree(|span| is_call(span, 6, ACQUIRE)).await?;
    assert_eq!(refused.shape(), format!("{ACQUIRE}(acquire(select queue))"));
    assert_eq!(refused.find("acquire").ok_or("no acquire")?.said("outcome"), "pool_empty");

    // What was not sent yet is sent at the end.
    TraceContext::new(7, 8, true).scope(hearth.acquire(from("default"))).await?;
    assert!(hearth.terminate()?.success(), "{}", host.log_tail());
    assert!(collector.spans().iter().any(|span| is_call(span, 7, ACQUIRE)), "{}", host.log_tail());
    Ok(())
}

async fn a_cold_acquire_of_qemu_shows_every_step_of_its_restore() -> Outcome {
    let collector = Collector::start()?;
    let host = Host::configured("qemu", 1, |_| Ok(collector.settings()))?;
    let hearth = host.start().await?;
    make_pool(&hearth, "empty", 0, WarmState::Running).await?;
    let (_, warm) = followed(&hearth, &collector, 1, from("default")).await?;
    assert_eq!(warm.shape(), format!("{ACQUIRE}(acquire(select journal rename))"));
    let (_, cold) = followed(&hearth, &collector, 2, from("empty")).await?;
    let restore = "restore(provider(files spawn connect load cont record) probe prepare)";
    let expected = format!("{ACQUIRE}(acquire(select queue({restore}) journal rename))");
    assert_eq!(cold.shape(), expected);
    Ok(())
}

async fn what_the_caller_says_of_its_trace_is_heeded_if_it_makes_sense() -> Outcome {
    let collector = Collector::start()?;
    let host = Host::configured("memory", 2, |_| Ok(collector.settings()))?;
    let hearth = host.start().await?;
    // One that is not kept is not kept here either.
    TraceContext::new(1, 2, false).scope(hearth.acquire(from("default"))).await?;
    let context = TraceContext::new(2, 3, true).with_state("vendor=1");
    context.scope(hearth.acquire(from("default"))).await?;
    let kept = collector.tree(|span| is_call(span, 2, ACQUIRE)).await?;
    assert_eq!(kept.span.trace_state, "vendor=1");
    assert!(collector.spans().iter().all(|span| span.trace_id != 1_u128.to_be_bytes()));
    for nonsense in ["nonsense", "00-0-0-01", "00-00000000000000000000000000000000-1-01"] {
        let mut request = tonic::Request::new(from("default"));
        request.metadata_mut().insert("traceparent", nonsense.parse()?);
        let vm = hearth.client.vms.clone().acquire_vm(request).await?.into_inner().vm;
        let uid = vm.ok_or("no vm")?.uid;
        let is_its = |span: &_| Tree::of(Clone::clone(span), &[]).said("uid") == uid;
        let acquire = collector.tree(|span| span.name == "acquire" && is_its(span)).await?;
        let of = &acquire.span;
        let root = collector.tree(|span| span.span_id == of.parent_span_id).await?;
        assert_eq!(root.span.name, ACQUIRE);
        assert!(root.span.parent_span_id.is_empty(), "a trace of its own");
    }
    Ok(())
}

async fn lines_of_the_log_have_the_call_and_its_trace() -> Outcome {
    // Whether spans are exported does not matter.
    let host = Host::configured("memory", 1, |_| Ok(String::new()))?;
    let hearth = host.start().await?;
    let drain = |undo| {
        let mut pools = hearth.client.pools.clone();
        let name = "pools/default".to_owned();
        async move { pools.drain_pool(v1::DrainPoolRequest { name, undo, ..Default::default() }).await }
    };
    TraceContext::new(0xabc, 1, true).scope(drain(false)).await?;
    drain(true).await?;
    let check = v1::readiness::Check::ConsoleMarker("READY".to_owned());
    let template = v1::Template {
        readiness: Some(v1::Readiness { check: Some(check), timeout: None }),
        ..v1::Template::default()
    };
    let request = v1::CreateTemplateRequest {
        template_id: "other".to_owned(),
        template: Some(template),
        ..Default::default()
    };
    let mut templates = hearth.client.templates.clone();
    let built = TraceContext::new(0xdef, 1, false).scope(templates.create_template(request));
    let built = built.await?.into_inner();
    let built = hearth.client.wait_operation(&built.name, std::time::Duration::from_secs(60));
    assert!(built.await?.done);

    let lines = |text: &str| -> Answer<Vec<serde_json::Value>> {
        let lines = host.log_lines(text);
        lines.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let drained = lines("whether a pool is kept empty")?;
    let [first, second] = &drained[..] else { return Err(format!("{drained:?}").into()) };
    assert_eq!(first["trace_id"], format!("{:032x}", 0xabc));
    assert_eq!(second.get("trace_id"), None, "its caller said nothing");
    assert_ne!(first["call"], second["call"]);
    assert!(first["call"].is_string() && second["call"].is_string(), "{drained:?}");
    // The build goes on when its call has long been answered.
    let ready = lines("a template is ready")?;
    let mut others = ready.iter().filter(|line| line["template"] == "other");
    let other = others.next().ok_or("nothing is said of it")?;
    assert_eq!(other["trace_id"], format!("{:032x}", 0xdef));
    // What hearth does by itself is nobody's call.
    let own = ready.iter().find(|line| line["template"] == "default").ok_or("no default")?;
    assert_eq!(own.get("call"), None);

    // Spans are for who wants them: from the next line on.
    assert_eq!(first.get("span"), None);
    let level = v1::SetLogLevelRequest { level: "debug".to_owned(), ..Default::default() };
    hearth.client.node.clone().set_log_level(level).await?;
    drain(false).await?;
    let drained = lines("whether a pool is kept empty")?;
    assert_eq!(drained[2]["span"]["name"], "call", "{drained:?}");
    Ok(())
}

async fn no_token_is_in_a_span_or_the_log() -> Outcome {
    const CALLERS: &str = "hearth_callers-own-secret";
    const COLLECTORS: &str = "the-collectors-secret";
    let collector = Collector::start()?;
    let configure = |dir: &Path| -> Answer<String> {
        let (identities, headers) = (dir.join("identities.toml"), dir.join("headers"));
        let hash = TokenHash::of(CALLERS.as_bytes());
        let who = format!(
            "[identities.root]\ntenant = \"ops\"\nroles = [\"operator\"]\ntokens = [\"{hash}\"]\n\
             [tenants.ops]\npools = [\"*\"]\n"
        );
        std::fs::write(&identities, who)?;
        std::fs::write(&headers, format!("authorization: Bearer {COLLECTORS}\n"))?;
        std::fs::set_permissions(&headers, Permissions::from_mode(0o600))?;
        let (telemetry, headers) = (collector.settings(), headers.display());
        let auth = format!("[auth]\nfile = \"{}\"\n", identities.display());
        Ok(format!("log_level = \"debug\"\n{auth}{telemetry}headers_file = \"{headers}\"\n"))
    };
    let host = Host::configured("memory", 1, configure)?;
    let hearth = host.start().await?;
    let ask = async |trace, token: &str| {
        let token = Some(token.to_owned().into());
        let credentials = Credentials { token, ..Credentials::default() };
        let client = HearthClient::connect_as(hearth.address(), Default::default(), &credentials);
        let client = client.await.map_err(|error| tonic::Status::unknown(error.to_string()))?;
        let acquired = client.acquire(from("default"), std::time::Duration::from_secs(60));
        TraceContext::new(trace, 2, true).scope(acquired).await
    };
    ask(1, CALLERS).await?;
    let refused = ask(2, "hearth_nobodys-secret").await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unauthenticated);
    for trace in [1, 2] {
        collector.tree(|span| is_call(span, trace, ACQUIRE)).await?;
    }
    assert!(hearth.terminate()?.success());
    let bearer = Some(format!("Bearer {COLLECTORS}"));
    assert!(collector.headers("authorization").iter().all(|it| *it == bearer));
    let log = std::fs::read_to_string(host.log())?;
    for secret in [CALLERS, COLLECTORS, "nobodys-secret"] {
        assert!(!collector.text().contains(secret), "{secret} is in a span");
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    Ok(())
}
