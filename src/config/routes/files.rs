//! The keys of a route that serves files: where they are, and how folders and names are answered.

use std::{collections::BTreeMap, path::PathBuf};

use super::{ITEMS_MAX, bounded, cache_control::read_cache_control, is_field_value, is_token};
use crate::{
    config::{
        field::Field,
        settings::{Coding, Files},
    },
    error::Result,
};

/// Longest name of a file in a folder, `NAME_MAX` of limits.h.
const NAME_BYTES_MAX: usize = 255;

/// The keys read so far.
pub(super) struct FilesKeys<'a> {
    root: Option<PathBuf>,
    /// All but its `root`.
    files: Files,
    /// The first key that is about files, for a redirect to complain of.
    first: Option<Field<'a>>,
}

impl Default for FilesKeys<'_> {
    fn default() -> Self {
        let files = Files {
            root: PathBuf::new(),
            index: vec![String::from("index.html")],
            dotfiles: false,
            types: BTreeMap::new(),
            listing: false,
            canonical: false,
            fallback: None,
            error_pages: BTreeMap::new(),
            cache_control: Vec::new(),
            precompressed: Vec::new(),
        };
        FilesKeys { root: None, files, first: None }
    }
}

impl<'a> FilesKeys<'a> {
    /// Reads a key; false when it is not about files.
    pub(super) fn read(&mut self, field: &Field<'a>) -> Result<bool> {
        let files = &mut self.files;
        match field.key {
            "root" => self.root = Some(field.path()?),
            "index" => files.index = read_index(field)?,
            "dotfiles" => files.dotfiles = field.bool()?,
            "types" => files.types = read_types(field)?,
            "listing" => files.listing = field.bool()?,
            "canonical" => files.canonical = field.bool()?,
            "fallback" => files.fallback = Some(read_file(field)?),
            "error_pages" => files.error_pages = read_error_pages(field)?,
            "cache_control" => files.cache_control = read_cache_control(field)?,
            "precompressed" => files.precompressed = read_codings(field)?,
            _ => return Ok(false),
        }
        self.first.get_or_insert_with(|| field.clone());
        Ok(true)
    }

    /// What is served, if a root was given; and the first key about files, if there was one.
    pub(super) fn finish(self) -> (Option<Files>, Option<Field<'a>>) {
        let FilesKeys { root, files, first } = self;
        (root.map(|root| Files { root, ..files }), first)
    }
}

fn read_index(field: &Field<'_>) -> Result<Vec<String>> {
    field
        .items(ITEMS_MAX)?
        .iter()
        .map(|item| {
            let name = item.text()?;
            if name.contains('/') || matches!(name, "." | "..") || name.len() > NAME_BYTES_MAX {
                return Err(item.wrong("the name of a file, without /"));
            }
            Ok(name.to_owned())
        })
        .collect()
}

/// A file below the root as the server looks it up: decoded, without segments that a request's path cannot have.
fn read_file(field: &Field<'_>) -> Result<String> {
    let path = field.text()?;
    let Some(rest) = path.strip_prefix('/') else {
        return Err(field.wrong("the path of a file below the root that begins with /"));
    };
    if rest.split('/').any(|segment| matches!(segment, "" | "." | "..") || segment.len() > NAME_BYTES_MAX) {
        return Err(field.error(format!(
            "{} must be the path of a file, without empty, . or .. segments and not ending in /",
            field.path
        )));
    }
    Ok(path.to_owned())
}

fn read_error_pages(field: &Field<'_>) -> Result<BTreeMap<u16, String>> {
    let mut pages = BTreeMap::new();
    for entry in bounded(field)? {
        let status =
            entry.key.parse().ok().filter(|status| entry.key.len() == 3 && (400..=599).contains(status));
        let Some(status) = status else {
            return Err(
                entry.at_key(format!("{:?} in {} is not a status from 400 to 599", entry.key, field.path))
            );
        };
        pages.insert(status, read_file(&entry)?);
    }
    Ok(pages)
}

fn read_types(field: &Field<'_>) -> Result<BTreeMap<String, String>> {
    let mut types = BTreeMap::new();
    for entry in bounded(field)? {
        let extension = entry.key.strip_prefix('.').unwrap_or(entry.key).to_ascii_lowercase();
        if extension.is_empty() || extension.contains(['/', '.']) || extension.len() > NAME_BYTES_MAX {
            return Err(entry
                .at_key(format!("{:?} in {} is not the extension of a file's name", entry.key, field.path)));
        }
        let media_type = entry.text()?;
        if !is_media_type(media_type) {
            return Err(entry.wrong("a media type such as text/plain; charset=utf-8"));
        }
        if types.insert(extension, media_type.to_owned()).is_some() {
            return Err(
                entry.at_key(format!("the extension {:?} is given twice in {}", entry.key, field.path))
            );
        }
    }
    Ok(types)
}

fn read_codings(field: &Field<'_>) -> Result<Vec<Coding>> {
    let mut codings = Vec::new();
    for item in field.items(Coding::COUNT)? {
        let name = item.text()?;
        let Some(coding) = Coding::ALL.into_iter().find(|coding| coding.name() == name) else {
            return Err(item.wrong("one of br, zstd, gzip"));
        };
        if codings.contains(&coding) {
            return Err(item.error(format!("{name} is given twice in {}", field.path)));
        }
        codings.push(coding);
    }
    Ok(codings)
}

/// `type/subtype` of tokens, RFC 9110 8.3.1; what follows a semicolon must only be a field value.
fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    is_field_value(text) && essence.split_once('/').is_some_and(|(main, sub)| is_token(main) && is_token(sub))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{routes::tests::one, settings::Action};

    #[test]
    fn media_types_are_kept_by_lower_case_extension() {
        let types = |text: &str| {
            one(&format!("{{ root: a, types: {{ {text} }} }}")).map(|route| match route.action {
                Action::Files(files) => files.types.into_iter().collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(
            types(".WASM: application/wasm"),
            Ok(vec![("wasm".to_owned(), "application/wasm".to_owned())])
        );
        assert!(types("txt: text/plain; charset=utf-8").is_ok());
        for bad in [
            "txt: text",
            "txt: text/",
            "txt: a b/c",
            "txt: \"text/plain\\r\\n\"",
            "a/b: text/plain",
            "a: x/y, .A: x/y",
        ] {
            assert!(types(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn precompressed_codings_are_known_and_given_once() {
        let codings = |text: &str| {
            one(&format!("{{ root: a, precompressed: {text} }}")).map(|route| match route.action {
                Action::Files(files) => files.precompressed,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(codings("[]"), Ok(vec![]));
        assert_eq!(codings("[gzip]"), Ok(vec![Coding::Gzip]));
        assert_eq!(codings("[zstd, gzip, br]"), Ok(vec![Coding::Zstd, Coding::Gzip, Coding::Br]));
        for bad in ["[deflate]", "[BR]", "[\".gz\"]", "[x-gzip]", "[identity]", "[1]"] {
            assert!(codings(bad).unwrap_err().starts_with("f:2:30: routes[0].precompressed[0]"), "{bad}");
        }
        assert_eq!(codings("[br, br]").unwrap_err(), "f:2:34: br is given twice in routes[0].precompressed");
        assert!(codings("[br, zstd, gzip, br]").unwrap_err().contains("has 4 items, at most 3"));
        assert_eq!(codings("br"), Ok(vec![Coding::Br]));
        assert!(one("{ redirect: { to: /b }, precompressed: [br] }").is_err());
    }

    #[test]
    fn index_names_are_names() {
        assert!(one("{ root: a, index: [a.html, b.html] }").is_ok());
        assert!(one("{ root: a, index: [] }").is_ok());
        for bad in ["[a/b]", "[..]", "[1]", "[\"\"]"] {
            assert!(
                one(&format!("{{ root: a, index: {bad} }}"))
                    .unwrap_err()
                    .starts_with("f:2:22: routes[0].index[0]")
            );
        }
    }

    fn files(text: &str) -> Result<Files, String> {
        one(&format!("{{ root: a, {text} }}")).map(|route| match route.action {
            Action::Files(files) => files,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_fallback_is_a_file_below_the_root() {
        let fallback =
            |text: &str| files(&format!("fallback: \"{text}\"")).map(|files| files.fallback.unwrap());
        let longest = format!("/{}", "n".repeat(NAME_BYTES_MAX));
        for good in ["/index.html", "/app/ü %41.html", &longest] {
            assert_eq!(fallback(good), Ok(good.to_owned()));
        }
        for bad in ["index.html", "/", "/app/", "//a", "/./a", "/../a", "/a/..", "", &format!("{longest}n")] {
            assert!(fallback(bad).unwrap_err().starts_with("f:2:24: routes[0].fallback must"), "{bad}");
        }
    }

    #[test]
    fn error_pages_are_files_by_status() {
        let pages = |text: &str| {
            files(&format!("error_pages: {{ {text} }}"))
                .map(|files| files.error_pages.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(
            pages("404: /404.html, \"503\": /e/503.html"),
            Ok(vec![(404, "/404.html".to_owned()), (503, "/e/503.html".to_owned())])
        );
        assert!(pages("400: /a, 599: /b").is_ok());
        for bad in ["399", "600", "4o4", "+404", "+44", "0404", "4", "\"\""] {
            let message = pages(&format!("{bad}: /a")).unwrap_err();
            assert!(
                message.contains("in routes[0].error_pages is not a status from 400 to 599"),
                "{message}"
            );
        }
        assert!(pages("404: a").unwrap_err().starts_with("f:2:34: routes[0].error_pages.404 must be"));
    }
}
