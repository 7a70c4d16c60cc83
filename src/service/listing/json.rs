//! A listing for programs (RFC 8259): `{"path":…,"entries":[{"name":…,"href":…,"type":…,"size":…,"modified":…}],"truncated":…}`.
//!
//! A name that is not UTF-8 has replacement characters in `name`; `href` has its bytes, percent-encoded.

use std::fmt::Write as _;

use percent_encoding::percent_encode;

use super::{Listing, NAME, TEXT_BYTES_MAX};
use crate::{files::Folder, log::rfc3339};

pub(super) fn render(listing: &Listing, folder: &Folder) -> Vec<u8> {
    let mut text = String::with_capacity(256 + folder.entries.len() * 128);
    text.push_str("{\"path\":");
    push_string(&mut text, &listing.path);
    text.push_str(",\"entries\":[");
    let mut is_cut = folder.is_cut;
    for (index, entry) in folder.entries.iter().enumerate() {
        if text.len() >= TEXT_BYTES_MAX {
            is_cut = true;
            break;
        }
        text.push_str(if index == 0 { "{\"name\":" } else { ",{\"name\":" });
        push_string(&mut text, &entry.name);
        text.push_str(",\"href\":\"");
        text.extend(percent_encode(&entry.name, NAME));
        let modified = rfc3339(entry.modified_unix_seconds);
        // Writing to a String cannot fail.
        let _ = if entry.is_folder {
            write!(text, "/\",\"type\":\"directory\",\"size\":null,\"modified\":\"{modified}\"}}")
        } else {
            write!(text, "\",\"type\":\"file\",\"size\":{},\"modified\":\"{modified}\"}}", entry.size)
        };
    }
    let _ = write!(text, "],\"truncated\":{is_cut}}}");
    text.into_bytes()
}

/// A string (RFC 8259 7): quotes, backslashes and controls are escaped.
fn push_string(text: &mut String, bytes: &[u8]) {
    text.push('"');
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' | '\\' => {
                text.push('\\');
                text.push(character);
            }
            '\0'..='\x1f' | '\x7f' => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::listing::{
        Key,
        tests::{entry, listing},
    };

    #[test]
    fn names_are_escaped_and_hrefs_have_all_bytes() {
        let entries = vec![
            entry(b"sub", true, 0, 0),
            entry(b"q\"b\\s\n\x7f", false, 1, 784_111_777),
            entry(b"\xff\xc3\xbc", false, u64::MAX, u64::MAX),
        ];
        let text = render(&listing("/ü \"/".as_bytes(), Key::Name, false), &Folder { entries, is_cut: true });
        let expected = concat!(
            r#"{"path":"/ü \"/","entries":["#,
            r#"{"name":"sub","href":"sub/","type":"directory","size":null,"modified":"1970-01-01T00:00:00Z"},"#,
            r#"{"name":"q\"b\\s\u000a\u007f","href":"q%22b%5Cs%0A%7F","type":"file","size":1,"#,
            r#""modified":"1994-11-06T08:49:37Z"},"#,
            "{\"name\":\"\u{fffd}ü\",\"href\":\"%FF%C3%BC\",\"type\":\"file\",\"size\":18446744073709551615,",
            r#""modified":"9999-12-31T23:59:59Z"}],"truncated":true}"#,
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn an_empty_folder_has_no_entries() {
        let text = render(&listing(b"/", Key::Name, false), &Folder::default());
        assert_eq!(text, br#"{"path":"/","entries":[],"truncated":false}"#);
    }
}
