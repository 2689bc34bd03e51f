use std::net::IpAddr;

use hearth_pool::bucket::Rate;
use hearth_pool::ids::Tenant;
use hearth_pool::tenants::{TenantSettings, TenantsSettings};
use hearth_providers::env::SystemEnv;
use http::Request;

use super::*;
use crate::auth::token::TokenHash;
use crate::config::Config;
use crate::listen::conduct::Conduct;

const IP: Address = Address::Ip(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

fn peer(address: Address, names: &[&str]) -> Arc<Peer> {
    let names = names.iter().map(|it| (*it).to_owned()).collect();
    let conduct = Arc::new(Conduct::new(Config::default().grpc.wasted_rate));
    Peer::new(address, names, 0, conduct)
}

fn guard(text: Option<&str>, tenants: TenantsSettings) -> Arc<Guard> {
    let identities = text.map(|text| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Identities::open(file.path()).unwrap()
    });
    let mut settings = Config::default().grpc;
    (settings.max_calls, settings.max_calls_per_tenant) = (2, 1);
    settings.max_buffered_bytes = 1000;
    Guard::new(Arc::new(SystemEnv), identities, &Tenants::new(tenants), &settings)
}

fn three() -> Arc<Guard> {
    let identity = |name: &str, role: &str, more: &str| {
        let hash = TokenHash::of(name.as_bytes());
        format!(
            "[identities.{name}]\ntenant = \"{name}\"\nroles = [\"{role}\"]\n\
             tokens = [\"{hash}\"]\n{more}\n"
        )
    };
    let text = [
        identity("user", "tenant", "certificates = [\"spiffe://a/user\"]\nuids = [12345]"),
        identity("boss", "operator", ""),
        identity("eyes", "viewer", ""),
    ];
    guard(Some(&text.concat()), TenantsSettings::default())
}

fn called(
    guard: &Guard,
    access: Access,
    authorization: &[&str],
    peer: Option<Arc<Peer>>,
) -> Result<Caller, String> {
    let mut request = Request::new(());
    for value in authorization {
        request.headers_mut().append(AUTHORIZATION, value.parse().unwrap());
    }
    peer.into_iter().for_each(|peer| drop(request.extensions_mut().insert(peer)));
    guard.check(access, &mut request).map_err(|denial| format!("{denial:?}"))?;
    Ok(Caller::of(request.extensions()))
}

#[test]
fn a_token_says_who_calls() {
    let guard = three();
    let user = called(&guard, Access::Use, &["Bearer user"], None).unwrap();
    assert_eq!((user.tenant.as_str(), user.is_operator()), ("user", false));
    assert!(user.scope().is_some());
    assert!(called(&guard, Access::Use, &["bearer user"], None).is_ok(), "of any case");
    let boss = called(&guard, Access::Manage, &["Bearer boss"], None).unwrap();
    assert!(boss.is_operator() && boss.scope().is_none());
    let eyes = called(&guard, Access::Read, &["Bearer eyes"], None).unwrap();
    assert!(eyes.scope().is_none() && !eyes.is_operator());
    for (access, token) in [
        (Access::Manage, "Bearer user"),
        (Access::Inspect, "Bearer user"),
        (Access::Use, "Bearer eyes"),
        (Access::Manage, "Bearer eyes"),
    ] {
        let refused = called(&guard, access, &[token], None).unwrap_err();
        assert!(refused.starts_with("Forbidden"), "{token} {access:?}: {refused}");
    }
}

#[test]
fn whoever_is_not_known_is_refused_and_never_taken_for_another() {
    let guard = three();
    let certified = || Some(peer(IP, &["spiffe://a/user"]));
    assert!(called(&guard, Access::Use, &[], certified()).is_ok());
    for authorization in [
        &["Bearer nobody"][..],
        &["Basic dXNlcg"],
        &["user"],
        &[""],
        &["Bearer "],
        &["Bearer  user"],
        &["Bearer USER"],
    ] {
        let refused = called(&guard, Access::Use, authorization, certified()).unwrap_err();
        assert!(refused.starts_with("Unauthenticated"), "{authorization:?}: {refused}");
    }
    let two = ["Bearer user", "Bearer boss"];
    assert!(called(&guard, Access::Known, &two, None).unwrap_err().contains("two"));
    let stranger = peer(IP, &["spiffe://a/other"]);
    assert!(called(&guard, Access::Known, &[], Some(stranger)).is_err());
    assert!(called(&guard, Access::Known, &[], Some(peer(IP, &[]))).is_err());
    assert!(called(&guard, Access::Known, &[], None).is_err());
    let probe = called(&guard, Access::Anyone, &[], None).unwrap();
    assert!(!probe.is_operator() && probe.scope().is_some(), "nobody, and not anybody");
}

#[test]
fn a_user_of_the_socket_is_who_it_runs_as() {
    let guard = three();
    let of = |uid| called(&guard, Access::Manage, &[], Some(peer(Address::User(uid), &[])));
    assert!(of(0).is_ok(), "root");
    assert!(of(guard.own_uid).is_ok(), "who runs the server");
    assert!(of(12345).unwrap_err().starts_with("Forbidden"), "a tenant");
    assert!(of(54321).unwrap_err().starts_with("Unauthenticated"), "a stranger");
}

#[test]
fn where_nobody_is_told_apart_everybody_is_an_operator() {
    let guard = guard(None, TenantsSettings::default());
    let caller = called(&guard, Access::Manage, &["Bearer whatever"], None).unwrap();
    assert!(caller.is_operator() && caller.scope().is_none());
    // Who has a server in its program says who calls, and the rules hold all the same.
    let mut request = Request::new(());
    request.extensions_mut().insert(Caller::tenant(Tenant::new("t")));
    assert!(matches!(guard.check(Access::Manage, &mut request), Err(Denial::Forbidden(_))));
    assert!(guard.check(Access::Use, &mut request).is_ok());
}

#[test]
fn places_and_room_are_bounded_and_come_back() {
    let guard = guard(None, TenantsSettings::default());
    let peer = self::peer(IP, &[]);
    let (nobody, mut on_peer) = (http::Extensions::new(), http::Extensions::new());
    on_peer.insert(Arc::clone(&peer));
    let first = guard.place(&on_peer).unwrap();
    let second = guard.place(&nobody).unwrap();
    assert!(matches!(guard.place(&nobody), Err(Denial::Overloaded(_))));
    assert!(matches!(guard.place(&on_peer), Err(Denial::Overloaded(_))), "a refusal takes none");
    assert_eq!(peer.calls(), 1);
    drop(first);
    assert_eq!(peer.calls(), 0);
    assert!(guard.place(&nobody).is_ok());
    drop(second);
    // One tenant never has all of them.
    let mut of_tenant = http::Extensions::new();
    of_tenant.insert(Caller::tenant(Tenant::new("a")));
    let place = guard.place(&of_tenant).unwrap();
    assert!(guard.place(&of_tenant).is_err() && guard.place(&nobody).is_ok());
    drop(place);
    assert!(guard.place(&of_tenant).is_ok());
    guard.take_room(600).unwrap();
    assert!(guard.take_room(600).is_err() && guard.take_room(usize::MAX / 2).is_err());
    guard.give_room(600);
    assert!(guard.take_room(1000).is_ok());
}

#[test]
fn a_tenants_calls_are_limited_and_nobody_elses() {
    let rate = Rate { per_second: 0.001, burst: 2 };
    let settings = TenantSettings { request_rate: Some(rate), ..TenantSettings::default() };
    let tenants = TenantsSettings {
        named: [("a".to_owned(), settings)].into(),
        ..TenantsSettings::default()
    };
    let guard = guard(None, tenants);
    let call = |tenant: &str| {
        let mut request = Request::new(());
        request.extensions_mut().insert(Caller::tenant(Tenant::new(tenant)));
        guard.check(Access::Use, &mut request)
    };
    assert!(call("a").is_ok() && call("a").is_ok());
    assert!(matches!(call("a"), Err(Denial::RateLimited(Error::RateLimited { .. }))));
    assert!((0..9).all(|_| call("b").is_ok()));
}
