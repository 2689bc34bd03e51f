//! The server: gRPC in front of the pool, its configuration, its metrics and its log.
//!
//! [`serve`] reads as the life of the process; everything else is a step of it. Requests come
//! in at [`grpc`], are checked (`check`), become one call of the pool, and what that refuses
//! becomes a status in [`status`], the only such place.

mod admin;
#[cfg(test)]
mod api_page;
mod audit;
pub mod auth;
mod backends;
mod call;
mod check;
pub mod config;
mod convert;
pub mod doctor;
mod filter;
pub mod front;
mod furnish;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod generated;
mod grpc;
mod health;
mod hearth;
mod layers;
mod listen;
mod metrics;
mod notify;
pub mod own_file;
mod page;
mod paging;
pub mod privileges;
mod process;
mod reload;
mod replay;
pub mod serve;
mod status;
pub mod telemetry;
mod tls;
mod watch;
