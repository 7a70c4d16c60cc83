//! libFuzzer's way into [`webserver_fuzz::head`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::head::check(input);
});
