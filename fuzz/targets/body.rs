//! libFuzzer's way into [`webserver_fuzz::body`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::body::check(input);
});
