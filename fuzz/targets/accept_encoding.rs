//! libFuzzer's way into [`webserver_fuzz::accept_encoding`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::accept_encoding::check(input);
});
