//! Text from anybody: it compiles or it does not, and takes neither the stack nor much memory. Evaluation always ends.

use ferromq_filter::{CompileError, Expression};
use proptest::prelude::*;

/// Compiles and evaluates on less stack than the 2 MiB of the broker's threads; without optimisation the functions need more of it.
fn on_a_small_stack(text: String) -> Result<bool, CompileError> {
    let compile = move || Expression::compile(&text).map(|expression| expression.clone().matches(|_| Some("5")));
    let stack = if cfg!(debug_assertions) { 1536 * 1024 } else { 512 * 1024 };
    std::thread::Builder::new().stack_size(stack).spawn(compile).unwrap().join().unwrap()
}

fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
    [open.repeat(levels), inner.to_owned(), close.repeat(levels)].concat()
}

#[test]
fn nesting_ends_at_the_limit() {
    let deepest = Expression::NESTING_MAX;
    for (open, close) in [("(", ")"), ("+", ""), ("-", ""), ("NOT ", "")] {
        // Asked whether it is null because `-a` is no condition.
        let text = |levels| format!("{} IS NULL", nested(open, "a", close, levels));
        assert!(on_a_small_stack(text(20_000)).unwrap_err().to_string().contains("nested deeper"), "{open}");
        assert!(on_a_small_stack(text(deepest + 1)).is_err(), "{open}");
        assert!(on_a_small_stack(text(deepest)).is_ok(), "{open}");
    }
}

#[test]
fn the_deepest_trees_fit_a_small_stack() {
    let deepest = Expression::NESTING_MAX;
    let levels = nested("(b = 'x' OR c = '5' AND TRUE = ", "TRUE", ")", deepest);
    assert_eq!(on_a_small_stack(levels), Ok(true));
    let levels = nested("(b = 'x' OR c = '5' AND TRUE <> ", "TRUE", ") NOT CONTAINS 'x'", deepest);
    assert_eq!(on_a_small_stack(levels), Ok(false));
    let levels = nested("b = 'x' OR c = '5' AND 'x' = - (", "a", ")", deepest / 2);
    assert_eq!(on_a_small_stack(levels), Ok(false));
    let chain = |links: usize| format!("a{}", " IS NOT NULL".repeat(links));
    assert_eq!(on_a_small_stack(chain(deepest + 1)), Ok(true));
    assert!(on_a_small_stack(chain(deepest + 2)).is_err());
    let chain = format!("a{}", " CONTAINS 'x'".repeat(20_000));
    assert!(on_a_small_stack(chain).is_err());
    // A chain in each of many levels is as deep as one long chain.
    let chains = nested("(", "a", &[") ", &" IS NULL".repeat(10)].concat(), deepest - 1);
    assert!(on_a_small_stack(chains).is_err());
}

#[test]
fn long_expressions_that_people_write_are_fine() {
    let or = format!("a = 0{}", " OR a = 5 AND b = 6".repeat(10_000));
    assert_eq!(on_a_small_stack(or), Ok(false));
    let list: Vec<String> = (0..10_000).rev().map(|key| format!("'key-{key}'")).collect();
    let expression = Expression::compile(&format!("a IN ({})", list.join(","))).unwrap();
    assert!(expression.matches(|_| Some("key-77")));
    assert!(!expression.matches(|_| Some("key-10000")));
}

#[test]
fn text_beyond_the_limit_is_refused() {
    let text = format!("a = '{}'", "x".repeat(Expression::LEN_MAX));
    assert!(Expression::compile(&text).unwrap_err().to_string().ends_with("the limit is 262144"));
}

/// Words of the language in any order, so that many of the texts are expressions.
fn words() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "a",
        "b",
        "$c",
        "NOT",
        "AND",
        "OR",
        "BETWEEN",
        "IN",
        "TRUE",
        "FALSE",
        "NULL",
        "IS",
        "CONTAINS",
        "STARTSWITH",
        "ENDSWITH",
        "=",
        "<>",
        ">",
        ">=",
        "<",
        "<=",
        "(",
        ")",
        ",",
        "+",
        "-",
        "0",
        "5",
        "3000000000",
        "5L",
        "0.5",
        "5.",
        "1e9",
        "'5'",
        "'it''s'",
        "''",
        "--",
        "/*",
        "*/",
        "\n",
        "'",
        "é",
        ".",
    ];
    prop::collection::vec(prop::sample::select(WORDS), 0..20).prop_map(|words| words.join(" "))
}

/// Expressions that mostly compile: random operands and operators in the shape of the grammar.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "b",
        "none",
        "5",
        "-3",
        "0.5",
        "5000000000",
        "'5'",
        "'x'",
        "TRUE",
        "NULL",
        "''",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(5, 40, 3, |inner| {
        let binary = prop::sample::select(vec!["AND", "OR", "=", "<>", "<", ">="]);
        prop_oneof![
            (inner.clone(), binary, inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            (inner.clone(), prop::sample::select(vec!["IS NULL", "CONTAINS '5'", "NOT ENDSWITH 'x'", "IN ('5', 'x')"]))
                .prop_map(|(left, test)| format!("({left} {test})")),
            (prop::sample::select(vec!["NOT", "-", "+"]), inner.clone())
                .prop_map(|(sign, inner)| format!("{sign} {inner}")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(value, low, high)| format!("{value} BETWEEN {low} AND {high}")),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![words(), expressions(), "\\PC{0,60}", any::<String>()], value in "[-+0-9.eEfNaxé ]{0,8}") {
        match Expression::compile(&text) {
            Ok(expression) => {
                let outcome = expression.evaluate(|name| (name != "none").then_some(value.as_str()));
                prop_assert_eq!(expression.matches(|name| (name != "none").then_some(value.as_str())), outcome == Ok(Some(true)));
                // What stands behind a complete expression changes nothing, unless the line end makes two dashes a comment.
                let longer = format!("{text}\n)\0");
                prop_assert!(text.contains("--") || Expression::compile(&longer).is_ok());
            }
            Err(error) => prop_assert!(error.position() <= text.chars().count() + 1 && error.to_string().len() < 400),
        }
    }
}
