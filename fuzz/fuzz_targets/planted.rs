//! A mistake that a search has to find, or it would find none: a word that no seed has, of which each letter
//! leads it on to the next.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let [b'w', rest @ ..] = bytes
        && let [b'a', rest @ ..] = rest
        && let [b'r', rest @ ..] = rest
        && let [b'm', ..] = rest
    {
        panic!("it is found");
    }
});
