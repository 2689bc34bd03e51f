//! A mistake that a search has to find, or it would find none: a word that no seed has.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hearth_fuzz::run("ids", bytes);
    assert_ne!(bytes.get(..4), Some(b"warm".as_slice()), "it is found");
});
