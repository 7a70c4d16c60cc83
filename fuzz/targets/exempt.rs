//! libFuzzer's way into [`webserver_fuzz::exempt`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::exempt::check(input);
});
