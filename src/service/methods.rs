//! Which methods a route takes, and what the others are answered.

use super::Response;
use crate::http::{Method, Status};

/// The methods of one route. `OPTIONS` is answered here for all that has such a list.
#[derive(Clone, Debug)]
pub(super) struct Methods {
    /// A bit for each method, by its place in [`NAMES`].
    taken: u8,
    /// The value of `Allow`.
    allow: Box<str>,
}

/// In the order in which `Allow` lists them.
const NAMES: [(Method, &str); 7] = [
    (Method::Get, "GET"),
    (Method::Head, "HEAD"),
    (Method::Options, "OPTIONS"),
    (Method::Post, "POST"),
    (Method::Put, "PUT"),
    (Method::Delete, "DELETE"),
    (Method::Patch, "PATCH"),
];

impl Methods {
    /// What files know.
    pub(super) fn get_and_head() -> Self {
        Methods::from_names(["GET"])
    }

    /// The methods of a route that names some; `None` for one that names none.
    pub(super) fn configured(names: &[String]) -> Option<Self> {
        if names.is_empty() { None } else { Some(Methods::from_names(names.iter().map(String::as_str))) }
    }

    /// `GET` includes `HEAD` (RFC 9110 9.1: a server MUST support both), and `OPTIONS` is always among them.
    fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut taken = bit(Method::Options);
        for name in names {
            let method = Method::from_text(name.as_bytes());
            taken |= bit(method);
            if method == Method::Get {
                taken |= bit(Method::Head);
            }
        }
        let allow: Vec<&str> =
            NAMES.iter().filter(|(method, _)| taken & bit(*method) != 0).map(|(_, name)| *name).collect();
        Methods { taken, allow: allow.join(", ").into() }
    }

    /// What is answered at once: to `OPTIONS`, and to a method that is not taken. `None`: the route answers.
    #[inline]
    pub(super) fn answer(&self, method: Method) -> Option<Response> {
        if method != Method::Options && self.taken & bit(method) != 0 {
            return None;
        }
        Some(self.answer_other(method))
    }

    #[cold]
    fn answer_other(&self, method: Method) -> Response {
        let mut response = match method {
            Method::Options => Response::new(Status::NO_CONTENT),
            // RFC 9110 9.1: 501 for a method nobody knows, 405 for one that is not allowed here.
            Method::Other => return Response::page(Status::NOT_IMPLEMENTED),
            _ => Response::page(Status::METHOD_NOT_ALLOWED),
        };
        response.push_field("Allow", self.allow.as_bytes());
        response
    }
}

/// 0 for a method that no route takes.
fn bit(method: Method) -> u8 {
    match method {
        Method::Get => 1,
        Method::Head => 2,
        Method::Options => 4,
        Method::Post => 8,
        Method::Put => 16,
        Method::Delete => 32,
        Method::Patch => 64,
        Method::Trace | Method::Connect | Method::Other => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_includes_head_and_options_is_always_answered() {
        assert_eq!(&*Methods::get_and_head().allow, "GET, HEAD, OPTIONS");
        assert_eq!(&*Methods::from_names(["HEAD"]).allow, "HEAD, OPTIONS");
        assert_eq!(&*Methods::from_names(["DELETE", "POST"]).allow, "OPTIONS, POST, DELETE");
        let methods = Methods::from_names(["GET", "POST"]);
        for method in [Method::Get, Method::Head, Method::Post] {
            assert!(methods.answer(method).is_none());
        }
        let status = |method| methods.answer(method).unwrap().status;
        assert_eq!(status(Method::Options), Status::NO_CONTENT);
        assert_eq!(status(Method::Put), Status::METHOD_NOT_ALLOWED);
        assert_eq!(status(Method::Trace), Status::METHOD_NOT_ALLOWED);
        assert_eq!(status(Method::Other), Status::NOT_IMPLEMENTED);
    }
}
