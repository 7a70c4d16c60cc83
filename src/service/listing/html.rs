//! A listing for people: one page that needs no script and no other file, readable on a phone and in the dark.
//!
//! Every name is escaped as text and percent-encoded in links, which are relative: the page is the same behind a proxy.

use std::fmt::Write as _;

use percent_encoding::percent_encode;

use super::{Key, Listing, NAME, TEXT_BYTES_MAX};
use crate::{
    files::{Folder, folder::Entry},
    log::rfc3339,
};

const STYLE: &str = include_str!("listing.css");

pub(super) fn render(listing: &Listing, folder: &Folder) -> Vec<u8> {
    let mut text = String::with_capacity(4096 + folder.entries.len() * 192);
    text.push_str(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>",
    );
    push_text(&mut text, &listing.path);
    text.push_str("</title>\n<style>\n");
    text.push_str(STYLE);
    text.push_str("</style>\n</head>\n<body>\n<main>\n<h1><bdi>");
    push_text(&mut text, &listing.path);
    text.push_str("</bdi></h1>\n<table>\n<thead>\n<tr>");
    for (key, word, label, class) in [
        (Key::Name, "name", "Name", ""),
        (Key::Size, "size", "Size", " class=\"n\""),
        (Key::Time, "time", "Modified (UTC)", " class=\"n t\""),
    ] {
        push_heading(&mut text, listing, key, word, label, class);
    }
    text.push_str("</tr>\n</thead>\n<tbody>\n");
    if !listing.is_top {
        text.push_str(
            "<tr><td><a class=\"f\" href=\"../\">../</a></td><td class=\"n\"></td><td class=\"n t\"></td></tr>\n",
        );
    }
    let mut is_cut = folder.is_cut;
    let mut shown = 0;
    for entry in &folder.entries {
        if text.len() >= TEXT_BYTES_MAX {
            is_cut = true;
            break;
        }
        push_row(&mut text, entry);
        shown += 1;
    }
    text.push_str("</tbody>\n</table>\n");
    if is_cut {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "<p>This folder has more entries than the {shown} that are shown.</p>");
    } else if shown == 0 {
        text.push_str("<p>This folder is empty.</p>\n");
    }
    text.push_str("</main>\n</body>\n</html>\n");
    text.into_bytes()
}

/// The name of a column, which orders by it; by the one that orders already, the other way round.
fn push_heading(text: &mut String, listing: &Listing, key: Key, word: &str, label: &str, class: &str) {
    let is_current = listing.key == key;
    // What is largest or newest is looked for more often than the other end.
    let is_next_descending = if is_current { !listing.is_descending } else { key != Key::Name };
    let order = if is_next_descending { "desc" } else { "asc" };
    let (sort, arrow) = match (is_current, listing.is_descending) {
        (false, _) => ("", ""),
        (true, false) => (" aria-sort=\"ascending\"", " \u{2191}"),
        (true, true) => (" aria-sort=\"descending\"", " \u{2193}"),
    };
    let _ = write!(
        text,
        "<th scope=\"col\"{class}{sort}><a rel=\"nofollow\" href=\"?sort={word}&amp;order={order}\">{label}{arrow}</a></th>"
    );
}

fn push_row(text: &mut String, entry: &Entry) {
    let slash = if entry.is_folder { "/" } else { "" };
    text.push_str(if entry.is_folder { "<tr><td><a class=\"f\" href=\"./" } else { "<tr><td><a href=\"./" });
    // A leading `./` keeps a colon in the name from ending a scheme (RFC 3986 4.2).
    text.extend(percent_encode(&entry.name, NAME));
    let _ = write!(text, "{slash}\"><bdi>");
    push_text(text, &entry.name);
    let _ = write!(text, "</bdi>{slash}</a></td><td class=\"n\">");
    if !entry.is_folder {
        push_size(text, entry.size);
    }
    let time = rfc3339(entry.modified_unix_seconds);
    let (day, clock) = (time.get(..10).unwrap_or_default(), time.get(11..16).unwrap_or_default());
    let _ = writeln!(text, "</td><td class=\"n t\"><time datetime=\"{time}\">{day} {clock}</time></td></tr>");
}

/// Bytes as text of a page: markup is escaped, controls and what is not UTF-8 are replaced.
fn push_text(text: &mut String, bytes: &[u8]) {
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            _ if character.is_control() => text.push(char::REPLACEMENT_CHARACTER),
            _ => text.push(character),
        }
    }
}

/// A number of bytes as people read it, in powers of 1024: one decimal below 10.
fn push_size(text: &mut String, bytes: u64) {
    const UNITS: [&str; 6] = ["KB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1024 {
        let _ = write!(text, "{bytes} B");
        return;
    }
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let _ = if tenths < 100 {
        write!(text, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        write!(text, "{} {}", tenths / 10, UNITS[unit])
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::listing::tests::{entry, listing};

    fn page(path: &[u8], entries: Vec<Entry>, is_cut: bool) -> String {
        let text = render(&listing(path, Key::Size, true), &Folder { entries, is_cut });
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn no_name_is_markup() {
        let name = b"<img src=x onerror=\"a('b')\">&\x07\xff";
        let page = page(b"/<script>/", vec![entry(name, false, 1, 0), entry(b"a:b", true, 0, 0)], false);
        assert!(!page.contains("<img") && !page.contains("<script"), "{page}");
        assert!(page.contains("<title>/&lt;script&gt;/</title>"));
        assert!(
            page.contains(
                "&lt;img src=x onerror=&quot;a(&#39;b&#39;)&quot;&gt;&amp;\u{fffd}\u{fffd}</bdi></a>"
            )
        );
        let link = "href=\"./%3Cimg%20src%3Dx%20onerror%3D%22a%28%27b%27%29%22%3E%26%07%FF\">";
        assert!(page.contains(link), "{page}");
        assert!(page.contains("<a class=\"f\" href=\"./a%3Ab/\"><bdi>a:b</bdi>/</a>"));
    }

    #[test]
    fn there_is_a_way_up_but_not_out() {
        assert!(page(b"/a/", Vec::new(), false).contains("href=\"../\""));
        assert!(!page(b"/", Vec::new(), false).contains("href=\"../\""));
    }

    #[test]
    fn columns_order_by_themselves_and_back() {
        let page = page(b"/", Vec::new(), false);
        assert!(
            page.contains("<th scope=\"col\"><a rel=\"nofollow\" href=\"?sort=name&amp;order=asc\">Name</a>")
        );
        assert!(page.contains(
            "aria-sort=\"descending\"><a rel=\"nofollow\" href=\"?sort=size&amp;order=asc\">Size \u{2193}"
        ));
        assert!(page.contains("href=\"?sort=time&amp;order=desc\""));
    }

    #[test]
    fn what_is_not_shown_is_said() {
        assert!(
            page(b"/", vec![entry(b"a", false, 1, 0)], true)
                .contains("more entries than the 1 that are shown")
        );
        assert!(page(b"/", Vec::new(), false).contains("This folder is empty."));
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KB"),
            (1536, "1.5 KB"),
            (10 << 10, "10 KB"),
            ((1 << 20) - 1, "1023 KB"),
            (1 << 20, "1.0 MB"),
            (5 << 30, "5.0 GB"),
            (u64::MAX, "15 EB"),
        ] {
            let mut text = String::new();
            push_size(&mut text, bytes);
            assert_eq!(text, expected);
        }
    }
}
