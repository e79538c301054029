//! Values, how they compare, and what Java reads as a number.

use std::cmp::Ordering;

use crate::error::EvaluationError;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'v> {
    Truth(bool),
    Number(Number),
    Text(&'v str),
}

/// Which of them a literal is decides how a property is read that is compared with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i32),
    Long(i64),
    Double(f64),
}

impl Value<'_> {
    /// The order by which `=` decides. A string is read as what the other side is. A boolean beside a number is less, on either side:
    /// so says Java's `ComparisonExpression.__compare`.
    pub(crate) fn order(self, other: Self) -> Result<Ordering, EvaluationError> {
        Ok(match (self, other) {
            (Value::Text(left), Value::Text(right)) => left.cmp(right),
            (Value::Truth(left), Value::Truth(right)) => left.cmp(&right),
            (Value::Number(left), Value::Number(right)) => left.order(right),
            (Value::Text(left), Value::Number(right)) => right.read_alike(left)?.order(right),
            (Value::Number(left), Value::Text(right)) => left.order(left.read_alike(right)?),
            (Value::Text(left), Value::Truth(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
            // Java casts the boolean to a string here.
            (Value::Truth(_), Value::Text(_)) => return Err(EvaluationError::TruthBeforeText),
            (Value::Truth(_), Value::Number(_)) | (Value::Number(_), Value::Truth(_)) => Ordering::Less,
        })
    }

    /// The order by which `<` and its kin decide: two strings are compared as doubles.
    pub(crate) fn numeric_order(self, other: Self) -> Result<Ordering, EvaluationError> {
        match (self, other) {
            (Value::Text(left), Value::Text(right)) => Ok(read_double(left)?.total_cmp(&read_double(right)?)),
            _ => self.order(other),
        }
    }
}

impl Number {
    pub(crate) fn negated(self) -> Number {
        match self {
            Number::Int(number) => Number::Int(number.wrapping_neg()),
            Number::Long(number) => Number::Long(number.wrapping_neg()),
            Number::Double(number) => Number::Double(-number),
        }
    }

    pub(crate) fn order(self, other: Number) -> Ordering {
        match (self.whole(), other.whole()) {
            (Some(left), Some(right)) => left.cmp(&right),
            // Java's order of doubles is total: -0.0 is less than 0.0, and NaN, which is never negative here, is above all.
            _ => self.double().total_cmp(&other.double()),
        }
    }

    /// `text` as a number of this kind.
    fn read_alike(self, text: &str) -> Result<Number, EvaluationError> {
        match self {
            Number::Int(_) => match i32::try_from(read_whole(text)?) {
                Ok(number) => Ok(Number::Int(number)),
                Err(_) => Err(EvaluationError::NotANumber),
            },
            Number::Long(_) => read_whole(text).map(Number::Long),
            Number::Double(_) => read_double(text).map(Number::Double),
        }
    }

    fn whole(self) -> Option<i64> {
        match self {
            Number::Int(number) => Some(number.into()),
            Number::Long(number) => Some(number),
            Number::Double(_) => None,
        }
    }

    fn double(self) -> f64 {
        match self {
            Number::Int(number) => number.into(),
            Number::Long(number) => number as f64,
            Number::Double(number) => number,
        }
    }
}

/// Java: `Long.valueOf(String)`.
fn read_whole(text: &str) -> Result<i64, EvaluationError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(EvaluationError::NotANumber);
    }
    let mut number = 0_i64;
    for c in digits.chars() {
        let digit = digit(c).ok_or(EvaluationError::NotANumber)?;
        let longer = number.checked_mul(10);
        // Counted on the number's own side of zero: there is one more below than above.
        let longer = longer.and_then(|n| if negative { n.checked_sub(digit) } else { n.checked_add(digit) });
        number = longer.ok_or(EvaluationError::NotANumber)?;
    }
    Ok(number)
}

/// The zeros of the scripts that have digits of their own, each followed by its 1 to 9. Java: `Character.digit`, which sees one UTF-16
/// unit at a time, so scripts above U+FFFF are left out.
const ZEROS: [u32; 36] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0de6, 0x0e50,
    0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50,
    0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

fn digit(c: char) -> Option<i64> {
    if c.is_ascii() {
        return c.to_digit(10).map(i64::from);
    }
    let code = u32::from(c);
    ZEROS.iter().find(|&&zero| (zero..zero + 10).contains(&code)).map(|&zero| i64::from(code - zero))
}

/// Java: `Double.valueOf(String)`, without its hexadecimal form (`0x1p3`), which nobody writes.
fn read_double(text: &str) -> Result<f64, EvaluationError> {
    let text = text.trim_matches(|c| c <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        "NaN" => return Ok(f64::NAN.copysign(1.0)),
        "Infinity" => return Ok(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        _ => {}
    }
    let number = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    // Rust's reader also knows the words inf and nan; of what else it reads, Java reads the same.
    if number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
        number.parse().map_err(|_| EvaluationError::NotANumber)
    } else {
        Err(EvaluationError::NotANumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_as_java_reads_them() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("007", 7),
            ("+12", 12),
            ("-9223372036854775808", i64::MIN),
            ("9223372036854775807", i64::MAX),
            ("-１２", -12),
            ("٣4", 34),
        ] {
            assert_eq!(read_whole(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "+",
            "-",
            "+-1",
            " 1",
            "1 ",
            "1.0",
            "1L",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "½",
            "𝟏",
        ] {
            assert_eq!(read_whole(text), Err(EvaluationError::NotANumber), "{text}");
        }
    }

    #[test]
    fn doubles_as_java_reads_them() {
        for (text, number) in [
            ("5", 5.0),
            (" \t5.5\n", 5.5),
            ("5.", 5.0),
            (".5", 0.5),
            ("+1e3", 1000.0),
            ("1E-2", 0.01),
            ("1f", 1.0),
            ("2.5D", 2.5),
            ("1e400", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("-0.0", -0.0),
        ] {
            assert_eq!(read_double(text).map(f64::to_bits), Ok(number.to_bits()), "{text}");
        }
        assert!(read_double("-NaN").unwrap().is_nan());
        for text in [
            "", " ", ".", "e5", "1e", "1e+", "+-1", "1_0", "inf", "nan", "infinity", "1ff", "f", "1 2", "1,5", "NaNf",
            "１",
        ] {
            assert_eq!(read_double(text), Err(EvaluationError::NotANumber), "{text}");
        }
    }

    #[test]
    fn doubles_have_a_total_order() {
        let order = |left: &str, right: &str| Value::Text(left).numeric_order(Value::Text(right)).unwrap();
        assert_eq!(order("NaN", "-NaN"), Ordering::Equal);
        assert_eq!(order("NaN", "Infinity"), Ordering::Greater);
        assert_eq!(order("-0.0", "0"), Ordering::Less);
        assert_eq!(order("1e1", "10"), Ordering::Equal);
    }
}
