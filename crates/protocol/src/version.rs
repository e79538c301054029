//! Release numbers as peers announce them. Java: `MQVersion`.

/// What we announce: 5.3.3. Clients gate features on it (SQL92 needs at least 232).
pub const VERSION: i32 = 479;

/// The last ordinal; larger values read as this one.
const HIGHER_VERSION: i32 = 612;

/// How tools print a version ordinal, `V5_3_3`. Every release has two ordinals, the snapshot's and its own.
/// Ordinals before 3.1.0 (47), which were numbered differently and predate the open protocol, print as `V3_0_X`.
pub fn version_name(ordinal: i32) -> String {
    if ordinal >= HIGHER_VERSION {
        return "HIGHER_VERSION".to_owned();
    }
    // (first ordinal: the snapshot of the first release, major, first minor, patches per minor, first patch)
    let (start, major, minor, patches, first_patch) = match ordinal {
        412.. => (412, 5, 0, 10, 0),
        212.. => (212, 4, 0, 10, 0),
        86.. => (86, 3, 3, 9, 1),
        46.. => (46, 3, 1, 10, 0),
        _ => return "V3_0_X".to_owned(),
    };
    let release = (ordinal - start) / 2;
    let suffix = if (ordinal - start) % 2 == 0 { "_SNAPSHOT" } else { "" };
    format!("V{major}_{}_{}{suffix}", minor + release / patches, first_patch + release % patches)
}

#[cfg(test)]
mod tests {
    use super::version_name;

    #[test]
    fn releases_of_the_specs_table() {
        for (ordinal, name) in [
            (63, "V3_1_8"),
            (62, "V3_1_8_SNAPSHOT"),
            (121, "V3_4_9"),
            (213, "V4_0_0"),
            (232, "V4_1_0_SNAPSHOT"),
            (315, "V4_5_1"),
            (317, "V4_5_2"),
            (333, "V4_6_0"),
            (409, "V4_9_8"),
            (413, "V5_0_0"),
            (437, "V5_1_2"),
            (479, "V5_3_3"),
            (493, "V5_4_0"),
            (99_999, "HIGHER_VERSION"),
        ] {
            assert_eq!(version_name(ordinal), name, "{ordinal}");
        }
    }
}
