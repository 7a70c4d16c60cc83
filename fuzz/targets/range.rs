//! libFuzzer's way into [`webserver_fuzz::range`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::range::check(input);
});
