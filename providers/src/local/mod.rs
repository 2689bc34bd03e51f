//! What adapters share whose VMs are processes of this host.

pub(crate) mod channel;
pub(crate) mod copy;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod program;
pub(crate) mod socket;
