//! libFuzzer's way into [`webserver_fuzz::conditional`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::conditional::check(input);
});
