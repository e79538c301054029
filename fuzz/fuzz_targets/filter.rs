//! Any text as a filter, the part before the first NUL; the rest is the value of every property. What compiles answers the same twice.
#![no_main]

use ferromq_filter::Expression;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (text, value) = text.split_once('\0').unwrap_or((text, "5"));
    match Expression::compile(text) {
        Ok(expression) => {
            let outcome = expression.evaluate(|_| Some(value));
            assert_eq!(expression.matches(|_| Some(value)), outcome == Ok(Some(true)));
            let _ = expression.evaluate(|_| None);
        }
        Err(error) => assert!(error.position() <= text.chars().count() + 1),
    }
});
