//! The hearth of now: one life after another, and whoever wants to call it waits for the next one.

use hearth_proto::HearthClient;
use hearth_proto::v1::{GetNodeRequest, ListVmsRequest, Vm};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::hearth::{Answer, Hearth, Host, Outcome};
use crate::ledger::Ledger;
use crate::scene::{PATIENCE, POLL};

/// Where clients find the present life.
#[derive(Clone)]
pub(crate) struct Door(watch::Receiver<Option<HearthClient>>);

impl Door {
    /// The client of a life that can be reached, or could a moment ago.
    pub(crate) async fn client(&mut self) -> Answer<HearthClient> {
        let client = tokio::time::timeout(PATIENCE, self.0.wait_for(Option::is_some)).await;
        let client = client.map_err(|_| "there was no hearth for long")??;
        client.clone().ok_or_else(|| "there is no hearth".into())
    }

    /// Every VM there is, by the first life that says so.
    pub(crate) async fn vms(&mut self) -> Answer<Vec<Vm>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = ListVmsRequest { page_size: 1000, ..ListVmsRequest::default() };
            match self.client().await?.vms.list_vms(request).await {
                Ok(listed) => return Ok(listed.into_inner().vms),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

/// One life after another on one host.
pub(crate) struct Node {
    life: Option<Hearth>,
    clients: watch::Sender<Option<HearthClient>>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self { life: None, clients: watch::Sender::new(None) }
    }

    pub(crate) fn door(&self) -> Door {
        Door(self.clients.subscribe())
    }

    /// Begins a life; its recovery may not be over yet.
    pub(crate) async fn begin(&mut self, host: &Host, more: &[&str]) -> Outcome {
        let hearth = host.begin(more).await?;
        self.clients.send_replace(Some(hearth.client.clone()));
        self.life = Some(hearth);
        Ok(())
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&self) -> Outcome {
        let life = self.life.as_ref().ok_or("there is no hearth")?;
        life.until("it serves", async || life.ready().await).await
    }

    /// `kill -9`; afterwards there is none.
    pub(crate) fn kill(&mut self) -> Outcome {
        self.clients.send_replace(None);
        self.life.take().map_or(Ok(()), Hearth::kill)
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn terminate(&mut self) -> Outcome {
        self.clients.send_replace(None);
        match self.life.take().ok_or("there is no hearth")?.terminate()? {
            status if status.success() => Ok(()),
            status => Err(format!("hearth ended with {status}").into()),
        }
    }

    /// The uuid of its state directory.
    pub(crate) async fn state_uuid(&self) -> Answer<String> {
        let life = self.life.as_ref().ok_or("there is no hearth")?;
        let node = life.client.node.clone().get_node(GetNodeRequest::default()).await?;
        Ok(node.into_inner().state_uuid)
    }

    /// Looks whether every lease that clients have is there.
    pub(crate) async fn audit(&self, ledger: &Ledger) -> Outcome {
        let before = ledger.before();
        let life = self.life.as_ref().ok_or("there is no hearth")?;
        ledger.audit(&before, &life.vms().await?);
        Ok(())
    }

    /// Waits until there are as many VMs without a lease as there should be, and none with one.
    pub(crate) async fn settled(&self, warm: usize) -> Outcome {
        let life = self.life.as_ref().ok_or("there is no hearth")?;
        life.until("no lease is left, and the pool is full", async || {
            let Ok(vms) = life.vms().await else { return false };
            vms.iter().all(|vm| vm.lease.is_none()) && vms.len() == warm
        })
        .await
    }

    pub(crate) fn client(&self) -> Answer<HearthClient> {
        Ok(self.life.as_ref().ok_or("there is no hearth")?.client.clone())
    }
}
