//! What Java's own filter answers (tests/golden/filter-5.3.3.txt), answered here too.

use ferromq_filter::{CompileError, Expression};

/// One message's properties.
struct Properties {
    name: String,
    pairs: Vec<(String, String)>,
}

impl Properties {
    fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The results of one expression, one for each of the property sets, in Java's words.
fn answers(text: &str, sets: &[Properties]) -> Result<Vec<&'static str>, CompileError> {
    let expression = Expression::compile(text)?;
    let answer = |set: &Properties| match expression.evaluate(|name| set.value(name)) {
        Ok(Some(true)) => "TRUE",
        Ok(Some(false)) => "FALSE",
        Ok(None) => "NULL",
        Err(_) => "ERROR",
    };
    Ok(sets.iter().map(answer).collect())
}

#[test]
fn every_row_is_answered_as_java_answers_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/filter-5.3.3.txt");
    let table = std::fs::read_to_string(path).unwrap();
    let mut sets: Vec<Properties> = Vec::new();
    let mut rows = 0;
    let mut differences = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("properties ") {
            sets.push(Properties { name: name.to_owned(), pairs: Vec::new() });
        } else if let Some(pair) = line.strip_prefix("    ") {
            let (name, value) = pair.split_once(" = ").unwrap();
            sets.last_mut().unwrap().pairs.push((name.to_owned(), serde_json::from_str(value).unwrap()));
        } else {
            let (java, text) = line.split_once("| ").unwrap();
            let text: String = serde_json::from_str(text).unwrap();
            let java: Vec<&str> = java.split_whitespace().collect();
            rows += 1;
            match answers(&text, &sets) {
                Ok(ours) if ours == java => {}
                Err(_) if java == ["REFUSED"] => {}
                Ok(ours) => differences.push(format!("{text}\n  Java: {java:?}\n  ours: {ours:?}")),
                Err(error) => differences.push(format!("{text}\n  Java: {java:?}\n  ours: {error}")),
            }
        }
    }
    let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
    assert!(rows >= 300 && sets.len() > 1, "{rows} rows for {names:?}");
    assert!(differences.is_empty(), "{} of {rows} rows, for {names:?}\n{}", differences.len(), differences.join("\n"));
}
