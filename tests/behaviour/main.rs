//! Behaviours of a running server: real sockets, real files, scripted peers.
//!
//! Each test starts a server of its own on a port that the kernel chooses and stops it at the end. Nothing here
//! sleeps for a fixed time: an event is awaited, with a deadline that only a defect reaches.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::needless_pass_by_value, missing_docs)]

mod admin;
mod anyone;
mod bodies;
mod browser;
mod certificates;
mod clients;
mod codings;
mod connections;
mod cors;
mod deadlines;
mod files;
mod handler_bodies;
mod handlers;
mod harness;
mod hello;
mod http1;
mod https;
mod https_redirect;
mod kernel;
mod lifecycle;
mod limits;
mod listing;
mod logs;
mod mapped;
mod memory;
mod mirror;
mod plan;
mod ranges;
mod refusals;
mod regressions;
mod renewal;
mod resumption;
mod routes;
mod site;
mod smoke;
mod sockets;
mod status_page;
mod system;
mod tls;
mod tls_client;
mod tls_configuration;
mod tls_ends;
mod tls_floods;
mod tls_forger;
mod tls_hostile;
mod tls_peers;
mod tls_tools;
