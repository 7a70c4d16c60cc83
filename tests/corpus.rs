//! The fuzz targets' promises, held on their corpora: each input as it is, and changed at random the same way in
//! every run. `fuzz/README.md` tells how libFuzzer runs the same functions for longer.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use targets::{Check, TARGETS};

/// Changed inputs of each target; enough to find a promise broken on purpose, few enough for a second or two.
const CHANGED: usize = 1_000;

/// A corpus is small: it is read by people and kept for good.
const CORPUS_BYTES_MAX: usize = 32 << 10;

/// Pieces that mean something to one grammar or another, put in at random places.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b"\0",
    b"\x01",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\n ",
    b"/",
    b"?",
    b"#",
    b"*",
    b"@",
    b"[",
    b"]",
    b"{",
    b"}",
    b"%",
    b"%2e",
    b"..",
    b"-",
    b"+",
    b";",
    b"\"",
    b"\\",
    b"0",
    b"0x",
    b"65536",
    b"18446744073709551616",
    b"\x7f",
    b"\xc3\xa4",
    b"\xe2\x80\xa8",
    b"http://",
    b"HTTP/1.1",
    b"HTTP/2.0",
    b"W/\"",
    b"Host: a\r\n",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"chunked",
    b"q=0",
    b"&a",
    b"*a",
    b"~",
    b"<<",
    b"!!",
    b"---\n",
];

/// xorshift64*: the same numbers in each run, so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(8)).min(bytes.len());
        match self.below(5) {
            0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].iter().copied())),
            3 => drop(bytes.splice(at..end, PIECES[self.below(PIECES.len())].iter().copied())),
            _ => {
                let copy = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                drop(bytes.splice(to..to, copy));
            }
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Names and inputs of a target's corpus, sorted by name so that runs agree.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = fs::read_dir(folder().join(target))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs one input, and says which it was when a promise is broken.
fn check(target: &str, check: Check, name: &str, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| check(input)))
        .unwrap_or_else(|_| panic!("{target}, {name}: {:?}", input.escape_ascii().to_string()))
}

#[test]
fn every_target_has_a_corpus_and_a_program() {
    let names = |folder: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let expected: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(folder()), expected);
    assert_eq!(names(folder().join("../targets")), expected);
}

#[test]
fn corpora_keep_the_promises_and_stay_small() {
    for (target, entry) in TARGETS {
        let inputs = corpus(target);
        let taken = inputs.iter().filter(|(name, input)| check(target, *entry, name, input)).count();
        // A corpus of which all or nothing is taken shows only half.
        assert!(taken > 5 && taken < inputs.len() - 5, "{target}: {taken} of {} taken", inputs.len());
        let bytes: usize = inputs.iter().map(|(_, input)| input.len()).sum();
        assert!(bytes <= CORPUS_BYTES_MAX, "{target}: {bytes} bytes");
    }
}

#[test]
fn changed_inputs_keep_the_promises() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (target, entry) in TARGETS {
        let inputs = corpus(target);
        let mut taken = 0;
        for round in 0..CHANGED {
            let (name, mut input) = inputs[round % inputs.len()].clone();
            for _ in 0..=random.below(2) {
                random.change(&mut input);
            }
            taken += usize::from(check(target, *entry, &format!("{name}, changed"), &input));
        }
        assert!(taken > CHANGED / 50 && taken < CHANGED * 49 / 50, "{target}: {taken} of {CHANGED} taken");
    }
}
