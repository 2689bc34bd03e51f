//! Who may do what: a server that tells callers apart, and everybody that calls it.

mod audit;
mod doors;
mod foreign;
mod matrix;
mod paths;
mod planted;
mod rates;
pub(crate) mod site;
mod streams;
mod wire;
