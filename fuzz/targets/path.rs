//! libFuzzer's way into [`webserver_fuzz::path`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::path::check(input);
});
