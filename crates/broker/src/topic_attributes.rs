//! Attributes of topics and groups: `+key=value,-key` as operators write it, and what becomes of the ones there are.
//!
//! Java: `AttributeParser`, `AttributeUtil`, `TopicAttributes`, `SubscriptionGroupAttributes`.

use ferromq_protocol::body::Table;

/// What a change makes of the attributes; the texts are Java's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    #[error("kv string format wrong.")]
    Blank,
    #[error("add/alter attribute format is wrong: {0}")]
    AddFormat(String),
    #[error("delete attribute format is wrong: {0}")]
    DeleteFormat(String),
    #[error("key duplication: {0}")]
    Duplicate(String),
    #[error("alter duplication key. key: {0}")]
    AlteredTwice(String),
    #[error("only add attribute is supported while creating topic. key: {0}")]
    OnlyAdd(String),
    #[error("attempt to delete a nonexistent key: {0}")]
    NotThere(String),
    #[error("wrong format key: {0}")]
    Sign(String),
    #[error("unsupported key: {0}")]
    Unsupported(String),
    #[error("attempt to update an unchangeable attribute. key: {0}")]
    Unchangeable(String),
    #[error("value is not in set: [{allowed}]")]
    NotInSet { allowed: String },
    #[error("value is not in range({min}, {max})")]
    NotInRange { min: i64, max: i64 },
    #[error("{key}={value} is not supported yet by this FerroMQ broker")]
    NotYet { key: String, value: String },
}

/// An attribute that exists.
#[derive(Debug)]
pub struct Attribute {
    key: &'static str,
    changeable: bool,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// In the order in which Java prints them. `refused` ones would be stored without the effect they ask for.
    OneOf {
        allowed: &'static [&'static str],
        refused: &'static [&'static str],
    },
    Range {
        min: i64,
        max: i64,
    },
}

/// How messages of a topic are used; only looked at by proxies. Java: `message.type`.
pub const MESSAGE_TYPE: &str = "message.type";

/// Java: `TopicAttributes.ALL`.
pub const OF_TOPICS: &[Attribute] = &[
    Attribute {
        key: "queue.type",
        changeable: false,
        values: Values::OneOf { allowed: &["BatchCQ", "SimpleCQ"], refused: &["BatchCQ"] },
    },
    Attribute {
        key: "cleanup.policy",
        changeable: false,
        values: Values::OneOf { allowed: &["DELETE", "COMPACTION"], refused: &["COMPACTION"] },
    },
    Attribute {
        key: MESSAGE_TYPE,
        changeable: true,
        values: Values::OneOf {
            allowed: &["UNSPECIFIED", "TRANSACTION", "FIFO", "MIXED", "DELAY", "NORMAL"],
            refused: &[],
        },
    },
    Attribute { key: "reserve.time", changeable: true, values: Values::Range { min: -1, max: i64::MAX } },
];

/// Java: `SubscriptionGroupAttributes.ALL`.
pub const OF_GROUPS: &[Attribute] =
    &[Attribute { key: "priority.factor", changeable: true, values: Values::Range { min: 0, max: 100 } }];

/// Reads `+key=value,-key` into the map form that bodies carry. Java: `AttributeParser.parseToMap`.
pub fn parse(text: &str) -> Result<Table<String, String>, AttributeError> {
    let mut changes = Table::new();
    for piece in text.split(',').filter(|_| !text.is_empty()) {
        let (key, value) = match piece.split_once('=') {
            Some((key, value)) if key.starts_with('+') => (key, value),
            Some((key, _)) => return Err(AttributeError::AddFormat(key.to_owned())),
            None if piece.starts_with('-') => (piece, ""),
            None => return Err(AttributeError::DeleteFormat(piece.to_owned())),
        };
        if changes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(AttributeError::Duplicate(key.to_owned()));
        }
    }
    Ok(changes)
}

/// The attributes after a change: `+key` adds or replaces, `-key` removes. Java: `AttributeUtil.alterCurrentAttributes`.
pub fn alter(
    known: &[Attribute],
    current: Option<&Table<String, String>>,
    changes: &Table<String, String>,
) -> Result<Table<String, String>, AttributeError> {
    let mut next = current.cloned().unwrap_or_default();
    let mut seen = Vec::new();
    for (signed, value) in changes {
        let mut chars = signed.chars();
        let (sign, key) = (chars.next().ok_or(AttributeError::Blank)?, chars.as_str());
        if key.trim().is_empty() {
            return Err(AttributeError::Blank);
        }
        if seen.contains(&key) {
            return Err(AttributeError::AlteredTwice(key.to_owned()));
        }
        seen.push(key);
        let attribute = known.iter().find(|attribute| attribute.key == key);
        let known = || attribute.ok_or_else(|| AttributeError::Unsupported(key.to_owned()));
        match (sign, current) {
            ('+', None) => {
                known()?.check(value)?;
                next.insert(key.to_owned(), value.clone());
            }
            (_, None) => return Err(AttributeError::OnlyAdd(key.to_owned())),
            ('+', Some(current)) => {
                let attribute = known()?;
                if !attribute.changeable && current.contains_key(key) {
                    return Err(AttributeError::Unchangeable(key.to_owned()));
                }
                attribute.check(value)?;
                next.insert(key.to_owned(), value.clone());
            }
            ('-', Some(current)) if !current.contains_key(key) => return Err(AttributeError::NotThere(key.to_owned())),
            ('-', Some(_)) => {
                if !known()?.changeable {
                    return Err(AttributeError::Unchangeable(key.to_owned()));
                }
                next.shift_remove(key);
            }
            _ => return Err(AttributeError::Sign(key.to_owned())),
        }
    }
    Ok(next)
}

impl Attribute {
    fn check(&self, value: &str) -> Result<(), AttributeError> {
        match &self.values {
            Values::OneOf { allowed, .. } if !allowed.contains(&value) => {
                Err(AttributeError::NotInSet { allowed: allowed.join(", ") })
            }
            Values::OneOf { refused, .. } if refused.contains(&value) => {
                Err(AttributeError::NotYet { key: self.key.to_owned(), value: value.to_owned() })
            }
            Values::OneOf { .. } => Ok(()),
            Values::Range { min, max } => match value.parse::<i64>() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(()),
                _ => Err(AttributeError::NotInRange { min: *min, max: *max }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(current: Option<&[(&str, &str)]>, text: &str) -> Result<Vec<(String, String)>, String> {
        let current: Option<Table<String, String>> =
            current.map(|pairs| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        let changes = parse(text).map_err(|error| error.to_string())?;
        alter(OF_TOPICS, current.as_ref(), &changes)
            .map(|table| table.into_iter().collect())
            .map_err(|error| error.to_string())
    }

    fn error(current: Option<&[(&str, &str)]>, text: &str) -> String {
        change(current, text).unwrap_err()
    }

    #[test]
    fn creating() {
        assert_eq!(change(None, "+message.type=FIFO").unwrap(), [("message.type".to_owned(), "FIFO".to_owned())]);
        assert!(change(None, "").unwrap().is_empty());
        // These three texts were captured from 5.3.3.
        assert_eq!(
            error(None, "+message.type=FOO"),
            "value is not in set: [UNSPECIFIED, TRANSACTION, FIFO, MIXED, DELAY, NORMAL]"
        );
        assert_eq!(
            error(None, "-message.type"),
            "only add attribute is supported while creating topic. key: message.type"
        );
        assert_eq!(error(None, "+k=v"), "unsupported key: k");
        assert_eq!(error(None, "message.type=FIFO"), "add/alter attribute format is wrong: message.type");
        assert_eq!(error(None, "+reserve.time=-2"), format!("value is not in range(-1, {})", i64::MAX));
        assert!(error(None, "+queue.type=BatchCQ").contains("not supported yet"));
    }

    #[test]
    fn changing() {
        let fifo: &[(&str, &str)] = &[("message.type", "FIFO"), ("queue.type", "SimpleCQ")];
        assert_eq!(change(Some(fifo), "+message.type=DELAY").unwrap()[0].1, "DELAY");
        assert_eq!(change(Some(fifo), "-message.type").unwrap(), [("queue.type".to_owned(), "SimpleCQ".to_owned())]);
        assert_eq!(change(Some(fifo), "").unwrap().len(), 2);
        assert_eq!(
            error(Some(fifo), "+queue.type=SimpleCQ"),
            "attempt to update an unchangeable attribute. key: queue.type"
        );
        assert_eq!(error(Some(fifo), "-reserve.time"), "attempt to delete a nonexistent key: reserve.time");
        assert_eq!(error(Some(fifo), "+message.type=FIFO,-message.type"), "alter duplication key. key: message.type");
        assert_eq!(error(Some(fifo), "+message.type=FIFO,+message.type=FIFO"), "key duplication: +message.type");
    }
}
