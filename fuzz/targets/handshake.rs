//! libFuzzer's way into [`webserver_fuzz::handshake`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webserver_fuzz::handshake::check(input);
});
