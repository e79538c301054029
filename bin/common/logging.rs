//! What the servers log.

use tracing_subscriber::EnvFilter;

/// Looked at in this order; the second is what most Rust programs go by.
const VARIABLES: [&str; 2] = ["FERROMQ_LOG", "RUST_LOG"];

/// What the environment asks for; without it INFO and above. What it says wrongly is named on stderr and left out.
pub fn filter() -> EnvFilter {
    let Some((name, text)) = asked(|name| std::env::var(name).ok()) else { return EnvFilter::new("info") };
    EnvFilter::builder().parse(&text).unwrap_or_else(|error| {
        eprintln!("{name} is `{text}`, but must be a level such as info, or ferromq_broker=debug,info: {error}");
        EnvFilter::new("info")
    })
}

/// The first variable with something in it.
fn asked(value: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    VARIABLES.into_iter().find_map(|name| Some((name, value(name).filter(|text| !text.trim().is_empty())?)))
}

#[cfg(test)]
mod tests {
    use super::asked;

    #[test]
    fn both_variables_are_taken_ours_first() {
        let of = |ours: Option<&str>, rusts: Option<&str>| {
            let value = |name: &str| if name == "FERROMQ_LOG" { ours } else { rusts };
            asked(|name| value(name).map(str::to_owned)).map(|(_, text)| text)
        };
        assert_eq!(of(Some("debug"), Some("warn")).as_deref(), Some("debug"));
        assert_eq!(of(None, Some("warn")).as_deref(), Some("warn"));
        assert_eq!(of(Some(" "), Some("warn")).as_deref(), Some("warn"));
        assert_eq!(of(None, None), None);
    }
}
