//! Pages and filters.

use std::collections::BTreeSet;

use hearth_proto::v1;
use tonic::Code;

use crate::harness::{from, reason, server, violated};

#[tokio::test]
async fn pages_join_to_the_whole_list_while_vms_come_and_go() {
    let server = server().await;
    let mut held = Vec::new();
    for index in 0..23 {
        let request = v1::AcquireVmRequest { vm_id: format!("vm-{index:02}"), ..from("default") };
        held.push(server.acquire(request).await.unwrap().vm.unwrap());
    }
    server.until_warm("default", 4).await;
    let mut vms = server.client.vms.clone();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let filter = "tenant = default".to_owned();
        let request = v1::ListVmsRequest { page_size: 5, page_token, filter };
        let page = vms.list_vms(request).await.unwrap().into_inner();
        assert!(page.vms.len() <= 5);
        if seen.is_empty() {
            // The one by which the token goes ends, and one is made before it.
            server.client.release(&held[4]).await.unwrap();
        }
        seen.extend(page.vms.into_iter().map(|vm| vm.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), unique.len()), (23, 23), "each once, although one has gone");
    assert!(seen.is_sorted());
    server.stop().await;
}

#[tokio::test]
async fn filters_choose_and_what_is_not_understood_is_refused() {
    let server = server().await;
    let request = v1::AcquireVmRequest {
        labels: [("team".to_owned(), "ci 1".to_owned())].into(),
        ..from("default")
    };
    let vm = server.acquire(request).await.unwrap().vm.unwrap();
    server.until_warm("default", 4).await;
    for (filter, count) in [
        ("", 5),
        ("labels.team = \"ci 1\"", 1),
        ("labels.team != \"ci 1\"", 4),
        ("tenant = default", 1),
        ("state = RUNNING AND pool = pools/default", 5),
        ("state = STOPPED", 0),
        ("pool = pools/other", 0),
    ] {
        assert_eq!(server.list(filter).await.len(), count, "{filter}");
    }
    let mut vms = server.client.vms.clone();
    for filter in ["nonsense = 1", "state = SLEEPING", "state", "state = RUNNING OR state = FAILED"]
    {
        let request = v1::ListVmsRequest { filter: filter.to_owned(), ..Default::default() };
        let refused = vms.list_vms(request).await.unwrap_err();
        assert_eq!(reason(&refused, Code::InvalidArgument), "INVALID_ARGUMENT", "{filter}");
        assert_eq!(violated(&refused), ["filter"]);
    }
    let request = v1::ListVmsRequest { page_size: -1, ..Default::default() };
    assert_eq!(violated(&vms.list_vms(request).await.unwrap_err()), ["page_size"]);
    let request = v1::ListVmsRequest { page_size: 1, ..Default::default() };
    let token = vms.list_vms(request).await.unwrap().into_inner().next_page_token;
    assert!(!token.is_empty());
    for (page_token, filter) in [("garbage", ""), (&*token, "state = RUNNING")] {
        let (page_token, filter) = (page_token.to_owned(), filter.to_owned());
        let request = v1::ListVmsRequest { page_token, filter, ..Default::default() };
        let refused = vms.list_vms(request).await.unwrap_err();
        assert_eq!(reason(&refused, Code::InvalidArgument), "PAGE_TOKEN_INVALID");
    }
    let request = v1::ListPoolsRequest { page_token: token, ..Default::default() };
    let refused = server.client.pools.clone().list_pools(request).await.unwrap_err();
    assert_eq!(reason(&refused, Code::InvalidArgument), "PAGE_TOKEN_INVALID");
    server.client.release(&vm).await.unwrap();
    server.stop().await;
}
