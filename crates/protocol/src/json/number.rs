//! Numbers as Java writes them, and numbers as anybody writes them.

use super::scan::Scalar;

/// `Double.toString`: plain between 10⁻³ and 10⁷, else `d.dddEn`, always with a fraction. No value for NaN and infinity,
/// which Java's serializer prints as null.
pub(super) fn java_double(value: f64) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        // Debug keeps one fraction digit and never uses an exponent in this range.
        return Some(format!("{value:?}"));
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e')?;
    let point = if digits.contains('.') { "" } else { ".0" };
    Some(format!("{digits}{point}E{exponent}"))
}

/// The integer behind a scalar: quoted numbers, whole floating-point numbers and booleans count; an empty string is 0,
/// as Java leaves a primitive field.
pub(super) fn integer(scalar: &Scalar<'_>) -> Option<i128> {
    let text = match scalar {
        Scalar::Number(text) => text,
        Scalar::Text(text) => match text.trim() {
            "" | "null" => return Some(0),
            text => text,
        },
        Scalar::Bool(value) => return Some(i128::from(*value)),
        Scalar::Null => return Some(0),
    };
    // Java's literals carry their type: `1L`.
    let text = text.strip_suffix(['L', 'S', 'B']).unwrap_or(text);
    text.parse().ok().or_else(|| {
        let value: f64 = text.parse().ok()?;
        // Beyond 2⁶⁴ no field could hold it anyway.
        (value.fract() == 0.0 && value.abs() < 1.9e19).then_some(value as i128)
    })
}

pub(super) fn double(scalar: &Scalar<'_>) -> Option<f64> {
    match scalar {
        Scalar::Number(text) => text.parse().ok(),
        Scalar::Text(text) if text.trim().is_empty() => Some(0.0),
        Scalar::Text(text) => text.trim().parse().ok(),
        Scalar::Bool(value) => Some(f64::from(u8::from(*value))),
        Scalar::Null => Some(0.0),
    }
}

pub(super) fn boolean(scalar: &Scalar<'_>) -> Option<bool> {
    match scalar {
        Scalar::Bool(value) => Some(*value),
        Scalar::Number(_) => integer(scalar).map(|number| number != 0),
        Scalar::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "y" | "t" => Some(true),
            "false" | "0" | "n" | "f" | "" | "null" => Some(false),
            _ => None,
        },
        Scalar::Null => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_in_java() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.12, "0.12"),
            (0.983_333_333_333_333_3, "0.9833333333333333"),
            (0.001, "0.001"),
            (0.000_999, "9.99E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (1.234_5e10, "1.2345E10"),
            (-1.5e-10, "-1.5E-10"),
        ] {
            assert_eq!(java_double(value).as_deref(), Some(text));
        }
        assert_eq!(java_double(f64::NAN), None);
        assert_eq!(java_double(f64::INFINITY), None);
    }

    #[test]
    fn integers_from_anything() {
        assert_eq!(integer(&Scalar::Number("-12")), Some(-12));
        assert_eq!(integer(&Scalar::Number("1.0E3")), Some(1000));
        assert_eq!(integer(&Scalar::Number("1.5")), None);
        assert_eq!(integer(&Scalar::Text("2598919".into())), Some(2_598_919));
        assert_eq!(integer(&Scalar::Text("x".into())), None);
        assert_eq!(boolean(&Scalar::Text("TRUE".into())), Some(true));
        assert_eq!(double(&Scalar::Text("0.5".into())), Some(0.5));
    }
}
