//! The built-in page: what a server answers that was told nothing.

use std::rc::Rc;

use super::{Call, Context, Handler, Outcome, Response, methods::Methods};
use crate::http::Status;

const PAGE: &[u8] = include_bytes!("welcome.html");

/// Answers `/` with the welcome page and everything else with 404.
#[derive(Debug)]
pub struct Welcome {
    methods: Methods,
}

impl Default for Welcome {
    fn default() -> Self {
        Welcome { methods: Methods::get_and_head() }
    }
}

impl Handler for Welcome {
    fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
        if let Some(refused) = self.methods.answer(call.request.method()) {
            return Outcome::Ready(refused);
        }
        Outcome::Ready(match call.rest() {
            b"" | b"index.html" => Response::fixed(Status::OK, "text/html; charset=utf-8", PAGE),
            _ => Response::page(Status::NOT_FOUND),
        })
    }
}
