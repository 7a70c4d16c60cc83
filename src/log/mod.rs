//! stand-in
#![allow(missing_docs)]
use std::{sync::Arc, time::Duration};
use crate::{config::{Level, LogPath}, metrics::ShardMetrics, sys::socket::Peer, Result};
#[derive(Debug)]
pub struct AccessLog;
impl AccessLog { pub fn flush(&mut self) {} pub fn has_lines(&self) -> bool {false} pub fn record(&mut self,_:&Entry<'_>){} }
pub struct Entry<'a> { pub peer: Peer, pub unix_seconds: u64, pub request_line: &'a [u8], pub status: u16, pub body_bytes_sent: u64, pub referer: Option<&'a [u8]>, pub user_agent: Option<&'a [u8]> }
#[derive(Clone)]
pub enum Sink { Callback(Arc<dyn Fn(Level,&str,&str)+Send+Sync>) }
#[derive(Debug)]
pub struct Writer;
impl Writer { pub fn start(_:Option<&LogPath>,_:Option<&LogPath>)->Result<Writer>{Ok(Writer)} pub fn sink(&self)->Option<Sink>{None} pub fn stop(self,_:Duration){} pub fn access_log(&self,_:Arc<ShardMetrics>)->Option<AccessLog>{None} }
pub fn dispatch(_:Level,_:Option<&Sink>)->tracing::Dispatch{tracing::Dispatch::none()}
