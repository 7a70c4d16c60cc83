//! Media types by file extension.
//!
//! An own table: the lists at hand have entries that are wrong for today's web. A configuration can override
//! any of it and says what is sent for an extension that is not here.

/// The longest extension of the table, in bytes; a longer one is not looked up.
const EXTENSION_BYTES_MAX: usize = 16;

/// The media type for the extension of the last segment of a path, in any case: `Content-Type`'s value.
///
/// `None` when the segment has no extension or an unknown one. Text types say `charset=utf-8`, in which the
/// web is written; JSON and XML have their own rules and say nothing. Sources that no browser runs are plain
/// text, `.ts` among them: TypeScript is more common below a document root than MPEG transport streams,
/// which `.m2ts` and `.mts` name without doubt.
pub fn lookup(path: &[u8]) -> Option<&'static str> {
    let extension = extension(path)?;
    let mut lower = [0; EXTENSION_BYTES_MAX];
    let lower = lower.get_mut(..extension.len())?;
    lower.copy_from_slice(extension);
    lower.make_ascii_lowercase();
    let lower: &[u8] = lower;
    let index = TABLE.binary_search_by(|(extension, _)| extension.as_bytes().cmp(lower)).ok()?;
    Some(TABLE[index].1)
}

/// What follows the last dot of the last segment of a path, as written; `None` without a dot or with nothing
/// behind it.
pub fn extension(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|&byte| byte == b'.' || byte == b'/')?;
    let (dot, extension) = path[end..].split_first()?;
    (*dot == b'.' && !extension.is_empty()).then_some(extension)
}

/// Sorted by extension, for the binary search.
#[rustfmt::skip]
static TABLE: &[(&str, &str)] = &[
    ("3g2", "video/3gpp2"),
    ("3gp", "video/3gpp"),
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("adoc", "text/plain; charset=utf-8"),
    ("ai", "application/postscript"),
    ("aif", "audio/aiff"),
    ("aiff", "audio/aiff"),
    ("apk", "application/vnd.android.package-archive"),
    ("apng", "image/apng"),
    ("appcache", "text/cache-manifest; charset=utf-8"),
    ("appimage", "application/vnd.appimage"),
    ("asc", "text/plain; charset=utf-8"),
    ("asm", "text/plain; charset=utf-8"),
    ("astro", "text/plain; charset=utf-8"),
    ("atom", "application/atom+xml"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("avifs", "image/avif"),
    ("bash", "text/plain; charset=utf-8"),
    ("bat", "text/plain; charset=utf-8"),
    ("bib", "text/plain; charset=utf-8"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("br", "application/octet-stream"),
    ("bz2", "application/x-bzip2"),
    ("c", "text/plain; charset=utf-8"),
    ("cc", "text/plain; charset=utf-8"),
    ("cer", "application/pkix-cert"),
    ("cfg", "text/plain; charset=utf-8"),
    ("cjs", "text/javascript; charset=utf-8"),
    ("conf", "text/plain; charset=utf-8"),
    ("cpp", "text/plain; charset=utf-8"),
    ("crl", "application/pkix-crl"),
    ("crt", "application/x-x509-ca-cert"),
    ("crx", "application/x-chrome-extension"),
    ("cs", "text/plain; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("cxx", "text/plain; charset=utf-8"),
    ("dart", "text/plain; charset=utf-8"),
    ("dash", "application/dash+xml"),
    ("deb", "application/vnd.debian.binary-package"),
    ("der", "application/x-x509-ca-cert"),
    ("diff", "text/plain; charset=utf-8"),
    ("djvu", "image/vnd.djvu"),
    ("dmg", "application/x-apple-diskimage"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("dot", "application/msword"),
    ("dotx", "application/vnd.openxmlformats-officedocument.wordprocessingml.template"),
    ("dtd", "application/xml-dtd"),
    ("ear", "application/java-archive"),
    ("eml", "message/rfc822"),
    ("eot", "application/vnd.ms-fontobject"),
    ("eps", "application/postscript"),
    ("epub", "application/epub+zip"),
    ("exe", "application/octet-stream"),
    ("fbx", "application/octet-stream"),
    ("flac", "audio/flac"),
    ("flv", "video/x-flv"),
    ("geojson", "application/geo+json"),
    ("gif", "image/gif"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("go", "text/plain; charset=utf-8"),
    ("gpx", "application/gpx+xml"),
    ("graphql", "text/plain; charset=utf-8"),
    ("gz", "application/gzip"),
    ("h", "text/plain; charset=utf-8"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("hpp", "text/plain; charset=utf-8"),
    ("htc", "text/x-component; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("img", "application/octet-stream"),
    ("ini", "text/plain; charset=utf-8"),
    ("ipynb", "application/x-ipynb+json"),
    ("iso", "application/octet-stream"),
    ("jad", "text/vnd.sun.j2me.app-descriptor; charset=utf-8"),
    ("jar", "application/java-archive"),
    ("java", "text/plain; charset=utf-8"),
    ("jfif", "image/jpeg"),
    ("jp2", "image/jp2"),
    ("jpe", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("json5", "application/json5"),
    ("jsonl", "application/jsonl"),
    ("jsonld", "application/ld+json"),
    ("jsx", "text/plain; charset=utf-8"),
    ("jxl", "image/jxl"),
    ("key", "application/vnd.apple.keynote"),
    ("kml", "application/vnd.google-earth.kml+xml"),
    ("kmz", "application/vnd.google-earth.kmz"),
    ("kt", "text/plain; charset=utf-8"),
    ("less", "text/plain; charset=utf-8"),
    ("log", "text/plain; charset=utf-8"),
    ("lua", "text/plain; charset=utf-8"),
    ("lz", "application/x-lzip"),
    ("lz4", "application/x-lz4"),
    ("lzma", "application/x-lzma"),
    ("m2ts", "video/mp2t"),
    ("m3u", "audio/mpegurl"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("markdown", "text/markdown; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("mdx", "text/plain; charset=utf-8"),
    ("mht", "message/rfc822"),
    ("mhtml", "message/rfc822"),
    ("mid", "audio/midi"),
    ("midi", "audio/midi"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mka", "audio/x-matroska"),
    ("mkv", "video/x-matroska"),
    ("mml", "text/mathml; charset=utf-8"),
    ("mobi", "application/x-mobipocket-ebook"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("mpe", "video/mpeg"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("msi", "application/octet-stream"),
    ("msm", "application/octet-stream"),
    ("msp", "application/octet-stream"),
    ("mts", "video/mp2t"),
    ("ndjson", "application/x-ndjson"),
    ("numbers", "application/vnd.apple.numbers"),
    ("obj", "model/obj"),
    ("odg", "application/vnd.oasis.opendocument.graphics"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("org", "text/plain; charset=utf-8"),
    ("otf", "font/otf"),
    ("p12", "application/x-pkcs12"),
    ("p7b", "application/x-pkcs7-certificates"),
    ("p7m", "application/pkcs7-mime"),
    ("p7s", "application/pkcs7-signature"),
    ("pages", "application/vnd.apple.pages"),
    ("patch", "text/plain; charset=utf-8"),
    ("pbf", "application/x-protobuf"),
    ("pdb", "application/x-pilot"),
    ("pdf", "application/pdf"),
    ("pem", "application/x-pem-file"),
    ("pfx", "application/x-pkcs12"),
    ("php", "text/plain; charset=utf-8"),
    ("pkg", "application/octet-stream"),
    ("pl", "text/plain; charset=utf-8"),
    ("ply", "model/ply"),
    ("png", "image/png"),
    ("pps", "application/vnd.ms-powerpoint"),
    ("ppsx", "application/vnd.openxmlformats-officedocument.presentationml.slideshow"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("prc", "application/x-pilot"),
    ("proto", "text/plain; charset=utf-8"),
    ("ps", "application/postscript"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("py", "text/plain; charset=utf-8"),
    ("rar", "application/vnd.rar"),
    ("rb", "text/plain; charset=utf-8"),
    ("rdf", "application/rdf+xml"),
    ("rpm", "application/x-rpm"),
    ("rs", "text/plain; charset=utf-8"),
    ("rss", "application/rss+xml"),
    ("rst", "text/plain; charset=utf-8"),
    ("rtf", "application/rtf"),
    ("sass", "text/plain; charset=utf-8"),
    ("scala", "text/plain; charset=utf-8"),
    ("scss", "text/plain; charset=utf-8"),
    ("sh", "text/plain; charset=utf-8"),
    ("shtml", "text/html; charset=utf-8"),
    ("sql", "text/plain; charset=utf-8"),
    ("sqlite", "application/vnd.sqlite3"),
    ("srt", "text/plain; charset=utf-8"),
    ("stl", "model/stl"),
    ("svelte", "text/plain; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("svgz", "image/svg+xml"),
    ("swf", "application/x-shockwave-flash"),
    ("swift", "text/plain; charset=utf-8"),
    ("sxw", "application/vnd.sun.xml.writer"),
    ("tar", "application/x-tar"),
    ("tcl", "text/plain; charset=utf-8"),
    ("tex", "text/plain; charset=utf-8"),
    ("text", "text/plain; charset=utf-8"),
    ("tgz", "application/gzip"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", "application/toml"),
    ("topojson", "application/geo+json"),
    ("torrent", "application/x-bittorrent"),
    ("ts", "text/plain; charset=utf-8"),
    ("tsv", "text/tab-separated-values; charset=utf-8"),
    ("tsx", "text/plain; charset=utf-8"),
    ("ttc", "font/collection"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("usdz", "model/vnd.usdz+zip"),
    ("vcard", "text/vcard; charset=utf-8"),
    ("vcf", "text/vcard; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("vue", "text/plain; charset=utf-8"),
    ("war", "application/java-archive"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("wbmp", "image/vnd.wap.wbmp"),
    ("weba", "audio/webm"),
    ("webapp", "application/x-web-app-manifest+json"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("wma", "audio/x-ms-wma"),
    ("wmv", "video/x-ms-wmv"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("wsdl", "application/wsdl+xml"),
    ("xht", "application/xhtml+xml"),
    ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("xpi", "application/x-xpinstall"),
    ("xsd", "application/xml"),
    ("xsl", "application/xslt+xml"),
    ("xslt", "application/xslt+xml"),
    ("xspf", "application/xspf+xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_unique_and_lower_case() {
        assert!(TABLE.is_sorted_by(|before, after| before.0 < after.0));
        assert!(TABLE.len() >= 150);
        for (extension, media_type) in TABLE {
            assert!(extension.len() <= EXTENSION_BYTES_MAX, "{extension}");
            assert!(extension.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
            assert!(media_type.is_ascii() && media_type.split_once('/').is_some(), "{media_type}");
            assert_eq!(
                media_type.starts_with("text/"),
                media_type.ends_with("; charset=utf-8"),
                "{media_type}"
            );
        }
    }

    #[test]
    fn every_extension_is_found() {
        for (extension, media_type) in TABLE {
            assert_eq!(lookup(format!("/a/b.{extension}").as_bytes()), Some(*media_type));
        }
    }

    #[test]
    fn what_browsers_are_strict_about_is_right() {
        assert_eq!(lookup(b"/app.mjs"), Some("text/javascript; charset=utf-8"));
        assert_eq!(lookup(b"/app.wasm"), Some("application/wasm"));
        assert_eq!(lookup(b"/app.css"), Some("text/css; charset=utf-8"));
        assert_eq!(lookup(b"/app.js.map"), Some("application/json"));
        assert_eq!(lookup(b"/a.svg"), Some("image/svg+xml"));
        assert_eq!(lookup(b"/a.webmanifest"), Some("application/manifest+json"));
        assert_eq!(lookup(b"/a.woff2"), Some("font/woff2"));
        assert_eq!(lookup(b"/a.ts"), Some("text/plain; charset=utf-8"));
    }

    #[test]
    fn the_last_extension_of_the_last_segment_counts_in_any_case() {
        assert_eq!(lookup(b"index.HTML"), Some("text/html; charset=utf-8"));
        assert_eq!(lookup(b"/a.tar.gz"), Some("application/gzip"));
        assert_eq!(lookup(b"/a.html/b.png"), Some("image/png"));
    }

    #[test]
    fn no_or_unknown_extension_is_none() {
        for path in
            [&b""[..], b"/", b"/a.html/b", b"/a.", b".", b"/a.html/", b"a.unknown", b"a.\xff\xfe", b"html"]
        {
            assert_eq!(lookup(path), None, "{path:?}");
        }
        assert_eq!(lookup(b"a.seventeen0letters"), None);
    }
}
