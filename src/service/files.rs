//! Static files: methods, folders and their index, codings, validators. Where the bytes are and how they leave is
//! not known here.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use percent_encoding::percent_encode;

use super::{
    Body, Call, Context, Entity, Freshness, Handler, Outcome, OwnedCall, Response, canonical,
    listing::Listing, methods::Methods, ranges, redirect,
};
use crate::{
    config::{self, Coding},
    files::{self, FileError, Found, How, Negotiated, OpenFile, Opened, Root, open::open},
    http::{
        Known, Method, Request, Status,
        accept_encoding::AcceptEncoding,
        conditional::{self, Validators, Verdict},
    },
};

/// Serves one folder.
#[derive(Debug)]
pub struct Files {
    root: Arc<Root>,
    index: Vec<String>,
    dotfiles: bool,
    types: Arc<BTreeMap<String, String>>,
    /// Codings that are looked for beside each file.
    precompressed: Vec<Coding>,
    methods: Methods,
    /// List a folder that has no index.
    listing: bool,
    /// The route's own fields tell caches about listings.
    has_cache_control: bool,
    /// Redirect to the one spelling of a path.
    canonical: bool,
    /// Answers for what is not found.
    fallback: Option<Box<[u8]>>,
    /// Answer instead of built-in texts.
    error_pages: Vec<(u16, Box<[u8]>)>,
    /// The first that is about a file counts.
    freshness: Vec<Rc<Freshness>>,
}

/// Looks that one request may need beside those at the index names and at the codings of what is found: the name itself,
/// the name without a slash, the folder for a listing, a fallback, an error page.
const LOOKS_BESIDE_INDEX: usize = 5;

/// What cannot be looked at without blocking.
enum MustWait {
    /// A file.
    File {
        /// Its path below the root.
        path: Vec<u8>,
        /// The file itself or a coding of it.
        negotiated: Negotiated,
        /// Read its content too, if it is no larger.
        content_bytes: usize,
    },
    /// The folder that was asked for, whose names are wanted.
    Folder,
}

/// A path that was looked at off the shard, and what was found. A folder that could not be listed ends in a slash, or is
/// empty.
type Looked = (Vec<u8>, Negotiated, Result<Rc<OpenFile>, FileError>);

impl Files {
    /// Serves `root` as configured for `route`: to `GET` and `HEAD` unless that names methods.
    pub(super) fn new(root: Arc<Root>, config: &config::Files, route: &config::Route) -> Self {
        // Configured with a leading slash, looked up without.
        let below_root = |path: &String| path.trim_start_matches('/').as_bytes().into();
        Files {
            root,
            index: config.index.clone(),
            dotfiles: config.dotfiles,
            types: Arc::new(config.types.clone()),
            precompressed: config.precompressed.clone(),
            methods: Methods::configured(&route.methods).unwrap_or_else(Methods::get_and_head),
            listing: config.listing,
            has_cache_control: route
                .headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("cache-control")),
            canonical: config.canonical,
            fallback: config.fallback.as_ref().map(below_root),
            error_pages: config
                .error_pages
                .iter()
                .map(|(&status, path)| (status, below_root(path)))
                .collect(),
            freshness: Freshness::rules(&config.cache_control),
        }
    }

    /// Answers from what is cached in this process and the kernel, and from what was `looked` at already.
    fn attempt(&self, call: &Call<'_>, context: &Context, looked: &[Looked]) -> Result<Response, MustWait> {
        let mut response = self.answer(call, context, looked)?;
        let status = response.status.code();
        if status >= 400
            && let Some((_, page)) = self.error_pages.iter().find(|(of, _)| *of == status)
            && let Ok(file) = self.find(page, context, looked)?
        {
            response.entity = None;
            response.push_field("Content-Type", file.media_type());
            response.body = whole(file);
        }
        Ok(response)
    }

    fn answer(&self, call: &Call<'_>, context: &Context, looked: &[Looked]) -> Result<Response, MustWait> {
        if let Some(response) = self.methods.answer(call.request.method()) {
            return Ok(response);
        }
        let rest = below_root(call);
        if !self.dotfiles && files::has_hidden_segment(rest) {
            return Ok(Response::page(Status::NOT_FOUND));
        }
        if rest.is_empty() && !call.path.is_empty() && !call.path.ends_with(b"/") {
            return Ok(path_redirect(call.path, b"/", call));
        }
        if self.canonical
            && let Some(target) = canonical::spelling(call.request.path(), call.path)
        {
            return Ok(redirect::location(Status::MOVED_PERMANENTLY, target, call.request));
        }
        let is_folder = rest.is_empty() || rest.ends_with(b"/");
        let (mut found, name) = if is_folder {
            self.find_index(rest, context, looked)?
        } else {
            (self.find(rest, context, looked)?, "")
        };
        if self.canonical
            && let Some(surplus) = self.surplus(rest, &found, context, looked)?
        {
            return Ok(path_redirect(&call.path[..call.path.len() - surplus], b"", call));
        }
        if self.listing && is_folder && matches!(found, Err(FileError::NotFound)) {
            match looked.iter().find(|(known, ..)| known == rest) {
                Some((.., listed)) => found = listed.clone(),
                None => return Err(MustWait::Folder),
            }
        }
        match (found, &self.fallback) {
            (Ok(file), _) => self.respond(call.request, file, rest, name, context, looked),
            (Err(FileError::NotFound), Some(fallback)) => match self.find(fallback, context, looked)? {
                Ok(file) => self.respond(call.request, file, fallback, "", context, looked),
                Err(FileError::IsDirectory) => Ok(Response::page(Status::NOT_FOUND)),
                Err(error) => Ok(Response::page(status_of(error))),
            },
            (Err(FileError::IsDirectory), _) if !is_folder => Ok(path_redirect(call.path, b"/", call)),
            (Err(error), _) => Ok(Response::page(status_of(error))),
        }
    }

    /// How many bytes at the end of a path are not needed: an index that its folder answers with anyway, or a slash
    /// behind a file.
    fn surplus(
        &self,
        rest: &[u8],
        found: &Result<Rc<OpenFile>, FileError>,
        context: &Context,
        looked: &[Looked],
    ) -> Result<Option<usize>, MustWait> {
        if let Some(file) = rest.strip_suffix(b"/") {
            let is_file =
                matches!(found, Err(FileError::NotFound)) && self.find(file, context, looked)?.is_ok();
            return Ok(is_file.then_some(1));
        }
        let folder_bytes = rest.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (folder, last) = rest.split_at(folder_bytes);
        if found.is_err() || !self.index.iter().any(|name| name.as_bytes() == last) {
            return Ok(None);
        }
        let (index, name) = self.find_index(folder, context, looked)?;
        Ok((index.is_ok() && name.as_bytes() == last).then_some(last.len()))
    }

    /// The file, or the coding of it that the client likes best, with what is said about it to caches. Its path is
    /// `folder` and `name` together.
    fn respond(
        &self,
        request: Request<'_>,
        mut file: Rc<OpenFile>,
        folder: &[u8],
        name: &str,
        context: &Context,
        looked: &[Looked],
    ) -> Result<Response, MustWait> {
        if !self.precompressed.is_empty() {
            let path = join(context.path.take(), folder, name);
            let chosen = self.negotiate(request, file, &path, context, looked);
            context.path.replace(path);
            match chosen? {
                Some(chosen) => file = chosen,
                None => return Ok(not_acceptable()),
            }
        }
        let mut response = respond(request, file);
        if !self.freshness.is_empty() && matches!(response.status.code(), 200 | 206 | 304) {
            response.freshness = self.freshness_of(folder, name, context);
        }
        Ok(response)
    }

    /// Of a file and the codings of it that are there, what the client likes best; `None` when it takes none of them
    /// (RFC 9110 12.5.3). A coding is used however old it is: what copies a site to its place seldom keeps times in
    /// their order, and who compresses beforehand does so again when the file changes.
    fn negotiate(
        &self,
        request: Request<'_>,
        file: Rc<OpenFile>,
        path: &[u8],
        context: &Context,
        looked: &[Looked],
    ) -> Result<Option<Rc<OpenFile>>, MustWait> {
        if !self.has_codings(path) {
            return Ok(Some(file));
        }
        for candidate in AcceptEncoding::read(request).preferred(&self.precompressed) {
            let Some(coding) = candidate else { return Ok(Some(file)) };
            // Whatever keeps it from being read, there is another candidate.
            if let Ok(coded) = self.find_as(path, Negotiated::Coded(coding), context, looked)? {
                return Ok(Some(coded));
            }
        }
        Ok(None)
    }

    /// Whether codings of a file are looked for: not of one that by its name is a coding itself.
    fn has_codings(&self, path: &[u8]) -> bool {
        let is_coded = |coding: &Coding| path.ends_with(coding.suffix().as_bytes());
        !self.precompressed.is_empty() && !self.precompressed.iter().any(is_coded)
    }

    /// The first rule that is about a file.
    fn freshness_of(&self, folder: &[u8], name: &str, context: &Context) -> Option<Rc<Freshness>> {
        let path = join(context.path.take(), folder, name);
        let rule = self.freshness.iter().find(|rule| rule.is_about(&path)).cloned();
        context.path.replace(path);
        rule
    }

    /// The first of the index names that exists in the folder, and that name; the folder's absence if none does.
    fn find_index(
        &self,
        folder: &[u8],
        context: &Context,
        looked: &[Looked],
    ) -> Result<(Result<Rc<OpenFile>, FileError>, &str), MustWait> {
        let mut path = context.path.take();
        let mut result = Ok((Err(FileError::NotFound), ""));
        for name in &self.index {
            path = join(path, folder, name);
            result = self.find(&path, context, looked).map(|found| (found, name.as_str()));
            if !matches!(result, Ok((Err(FileError::NotFound | FileError::IsDirectory), _))) {
                break;
            }
            result = Ok((Err(FileError::NotFound), ""));
        }
        context.path.replace(path);
        result
    }

    fn find(
        &self,
        path: &[u8],
        context: &Context,
        looked: &[Looked],
    ) -> Result<Result<Rc<OpenFile>, FileError>, MustWait> {
        let negotiated = if self.has_codings(path) { Negotiated::Identity } else { Negotiated::No };
        self.find_as(path, negotiated, context, looked)
    }

    fn find_as(
        &self,
        path: &[u8],
        negotiated: Negotiated,
        context: &Context,
        looked: &[Looked],
    ) -> Result<Result<Rc<OpenFile>, FileError>, MustWait> {
        let now = context.now.get();
        let mut cache = context.files.borrow_mut();
        let root_id = self.root.id_of(negotiated);
        let found = cache.find(root_id, path, now.millis);
        let content_bytes = cache.content_bytes_wanted(&found);
        let stale = match found {
            Found::Hit(file) => return Ok(Ok(file)),
            Found::Failed(error) => return Ok(Err(error)),
            Found::Stale(file) => Some(file),
            Found::Missing => None,
        };
        if let Some((.., result)) = looked.iter().find(|(known, of, _)| known == path && *of == negotiated) {
            return Ok(result.clone());
        }
        let (how, types) = (How::Cached, &self.types);
        match open(&self.root, path, negotiated, how, content_bytes, types, now.unix_seconds) {
            Opened::WouldBlock => {
                let content_bytes = stale.map_or(0, |_| content_bytes);
                Err(MustWait::File { path: path.to_vec(), negotiated, content_bytes })
            }
            opened => Ok(cache.store(root_id, path, opened, now.millis)),
        }
    }

    /// Looks off the shard at each path that would block, then answers.
    async fn answer_later(self: Rc<Self>, call: OwnedCall, context: Rc<Context>) -> Response {
        let mut looked: Vec<Looked> = Vec::new();
        // One look a candidate.
        for _ in 0..=self.index.len() + self.precompressed.len() + LOOKS_BESIDE_INDEX {
            let (path, negotiated, content_bytes) = match self.attempt(&call.as_call(), &context, &looked) {
                Ok(response) => return response,
                Err(MustWait::File { path, negotiated, content_bytes }) => (path, negotiated, content_bytes),
                Err(MustWait::Folder) => {
                    let folder = below_root(&call.as_call()).to_vec();
                    match self.list(&call, &folder, &context).await {
                        Ok(response) => return response,
                        Err(error) => looked.push((folder, Negotiated::No, Err(error))),
                    }
                    continue;
                }
            };
            let unix_seconds = context.now.get().unix_seconds;
            let (root, types, wanted) = (Arc::clone(&self.root), Arc::clone(&self.types), path.clone());
            let how = How::Blocking;
            let look = move || open(&root, &wanted, negotiated, how, content_bytes, &types, unix_seconds);
            let Ok(waiting) = context.offload.run(look) else {
                return Response::unavailable();
            };
            let Some(opened) = waiting.await else {
                return Response::unavailable();
            };
            let now = context.now.get().millis;
            let root_id = self.root.id_of(negotiated);
            let result = context.files.borrow_mut().store(root_id, &path, opened, now);
            looked.push((path, negotiated, result));
        }
        Response::unavailable()
    }

    /// Reads the folder that was asked for off the shard, and lists it.
    async fn list(&self, call: &OwnedCall, folder: &[u8], context: &Context) -> Result<Response, FileError> {
        let Some(permit) = context.listings.take() else { return Ok(Response::unavailable()) };
        let listing = Arc::new(Listing::new(&call.as_call(), folder.is_empty()));
        let (root, wanted, dotfiles) = (Arc::clone(&self.root), folder.to_vec(), self.dotfiles);
        let rendering = Arc::clone(&listing);
        let waiting = context.offload.run(move || {
            files::folder::list(&root, &wanted, dotfiles).map(|entries| rendering.render(entries))
        });
        let text = match waiting {
            Ok(waiting) => waiting.await,
            Err(_) => None,
        };
        let Some(text) = text else { return Ok(Response::unavailable()) };
        let mut response = listing.response(text?, permit);
        response.freshness = self.freshness_of(folder, "", context);
        if response.freshness.is_none() && !self.has_cache_control {
            response.push_field("Cache-Control", b"no-cache");
        }
        Ok(response)
    }
}

/// The path below the root.
fn below_root<'a>(call: &Call<'a>) -> &'a [u8] {
    let rest = call.rest();
    rest.strip_prefix(b"/").unwrap_or(rest)
}

/// `folder` and `name` together, in the memory of `path`.
fn join(mut path: Vec<u8>, folder: &[u8], name: &str) -> Vec<u8> {
    path.clear();
    path.extend_from_slice(folder);
    path.extend_from_slice(name.as_bytes());
    path
}

/// To another path of this server; a folder's slash, for instance, without which relative links would go wrong.
fn path_redirect(path: &[u8], end: &[u8], call: &Call<'_>) -> Response {
    let mut target = vec![b'/'];
    target.extend(percent_encode(path, redirect::PATH).flat_map(str::bytes));
    target.extend_from_slice(end);
    redirect::location(Status::MOVED_PERMANENTLY, target, call.request)
}

impl Handler for Files {
    fn handle(self: Rc<Self>, call: &Call<'_>, context: &Rc<Context>) -> Outcome {
        match self.attempt(call, context, &[]) {
            Ok(response) => Outcome::Ready(response),
            Err(_) => {
                Outcome::Pending(Box::pin(self.answer_later(OwnedCall::from(call), Rc::clone(context))))
            }
        }
    }
}

/// The file, a part of it, or the answer to a condition (RFC 9110 13.2.2 and 14).
fn respond(request: Request<'_>, file: Rc<OpenFile>) -> Response {
    let validators = Validators { etag: file.etag(), modified_unix_seconds: file.modified_unix_seconds() };
    let range_counts = match conditional::evaluate(request, &validators) {
        Verdict::Proceed { range } => range && request.method() == Method::Get,
        Verdict::NotModified => {
            let mut response = Response::new(Status::NOT_MODIFIED);
            response.entity = Some(Entity::Validators(file));
            return response;
        }
        Verdict::PreconditionFailed => return Response::page(Status::PRECONDITION_FAILED),
    };
    if range_counts
        && let Some(value) = request.field(Known::Range)
        && let Some(response) = ranges::respond(value, &file)
    {
        return response;
    }
    let mut response = Response::new(Status::OK);
    response.body = whole(Rc::clone(&file));
    response.entity = Some(Entity::Whole(file));
    response
}

/// All bytes of a file, from memory if they are there.
fn whole(file: Rc<OpenFile>) -> Body {
    match file.content() {
        Some(content) => Body::Cached(content.clone()),
        None => {
            let length = file.size();
            Body::File { file, offset: 0, length }
        }
    }
}

/// RFC 9110 15.5.7. Only where codings are configured: elsewhere `Accept-Encoding` is not looked at, and everybody gets
/// the content as it is.
fn not_acceptable() -> Response {
    let mut response = Response::page(Status::NOT_ACCEPTABLE);
    response.push_field("Vary", b"Accept-Encoding");
    response
}

fn status_of(error: FileError) -> Status {
    Status::from_code(error.status()).unwrap_or(Status::INTERNAL_SERVER_ERROR)
}
