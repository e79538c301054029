//! The enumerations of the bodies. Written by name, read by name or ordinal (C++ and Go send ordinals).

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! java_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $java:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $java)] $variant,)+
        }

        impl $name {
            /// The constant's name in Java, as it is written.
            pub fn java_name(self) -> &'static str {
                match self {
                    $($name::$variant => $java,)+
                }
            }

            /// The constant of that name, ignoring case.
            pub fn from_java_name(name: &str) -> Option<$name> {
                $(if name.eq_ignore_ascii_case($java) {
                    return Some($name::$variant);
                })+
                None
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.java_name())
            }
        }
    };
}

java_enum! {
    /// How a consumer gets its messages. Java: ConsumeType.
    ConsumeType {
        Actively = "CONSUME_ACTIVELY",
        #[default]
        Passively = "CONSUME_PASSIVELY",
        Pop = "CONSUME_POP",
    }
}

java_enum! {
    /// Whether every member of a group gets a message or one of them. Java: MessageModel.
    MessageModel {
        Broadcasting = "BROADCASTING",
        #[default]
        Clustering = "CLUSTERING",
    }
}

java_enum! {
    /// Where a group without offsets begins. Java: ConsumeFromWhere.
    ConsumeFromWhere {
        #[default]
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        LastOffsetAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

java_enum! {
    /// Java: CMResult.
    ConsumeResult {
        #[default]
        Success = "CR_SUCCESS",
        Later = "CR_LATER",
        Rollback = "CR_ROLLBACK",
        Commit = "CR_COMMIT",
        ThrowException = "CR_THROW_EXCEPTION",
        ReturnNull = "CR_RETURN_NULL",
    }
}

java_enum! {
    /// Java: TopicFilterType.
    TopicFilterType {
        #[default]
        SingleTag = "SINGLE_TAG",
        MultiTag = "MULTI_TAG",
    }
}

java_enum! {
    /// How a group's messages are retried. Java: GroupRetryPolicyType.
    RetryPolicyKind {
        Exponential = "EXPONENTIAL",
        #[default]
        Customized = "CUSTOMIZED",
    }
}

java_enum! {
    /// How a group asks for messages of a topic. Java: MessageRequestMode.
    MessageRequestMode {
        #[default]
        Pull = "PULL",
        Pop = "POP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ordinals() {
        assert_eq!(crate::json::from_slice(b"2"), Ok(ConsumeFromWhere::MinOffset));
        assert_eq!(crate::json::from_slice(b"'CONSUME_POP'"), Ok(ConsumeType::Pop));
        assert_eq!(crate::json::to_vec(&MessageModel::Broadcasting), b"\"BROADCASTING\"");
        assert_eq!(TopicFilterType::from_java_name("multi_tag"), Some(TopicFilterType::MultiTag));
        assert_eq!(format!("{:>11}", TopicFilterType::SingleTag), " SINGLE_TAG");
    }
}
