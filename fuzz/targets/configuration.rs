//! libFuzzer's way into [`webserver_fuzz::configuration`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::configuration::check(input);
});
