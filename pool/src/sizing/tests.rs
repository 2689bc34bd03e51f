//! The formula against the tables it was chosen by, and what a pool sees of the rule.

mod behaviour;
mod formula;
mod properties;
