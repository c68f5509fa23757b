//! How far a tenant of a shared cluster may raise what its backends take of the machine, at level
//! guard (`docs/isolation.md` carries the same table; a test compares the two).

/// A setting, its cap, and how many bytes a bare number of it stands for (1 for those that count).
/// The caps are some ten times PostgreSQL's defaults: room for an honest report, and not enough to
/// take a machine's memory with a few connections.
const CAPS: [(&str, &str, u64); 9] = [
    ("from_collapse_limit", "12", 1),
    ("geqo_threshold", "12", 1),
    ("hash_mem_multiplier", "4", 1),
    ("join_collapse_limit", "12", 1),
    ("maintenance_work_mem", "256MB", 1024),
    ("max_parallel_maintenance_workers", "4", 1),
    ("max_parallel_workers_per_gather", "4", 1),
    ("temp_buffers", "64MB", 8192),
    ("work_mem", "64MB", 1024),
];

/// Whether a setting may have this value. A value that cannot be told is none a capped setting may
/// have. `name` in lower case.
pub fn is_within(name: &str, value: Option<&str>) -> bool {
    let Some((_, cap, unit)) = CAPS.iter().find(|(known, ..)| *known == name) else { return true };
    let amount = |text| amount(text, *unit);
    value.and_then(amount).zip(amount(cap)).is_some_and(|(value, cap)| value <= cap)
}

/// The number PostgreSQL makes of a value, at least: it reads a leading zero as octal, which is
/// less than the same digits in decimal. What is written in any other way is `None`.
fn amount(text: &str, unit: u64) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let bytes = match suffix.trim_start() {
        "" => unit as f64,
        _ if unit == 1 => return None,
        "B" => 1.0,
        "kB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        "TB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_values_never_panic() {
        let mut random = fastrand::Rng::with_seed(17);
        for _ in 0..20_000 {
            let length = random.usize(..8);
            let letters = b"0123456789.-+ smhdinu\xc3\xa9";
            let bytes: Vec<u8> =
                (0..length).map(|_| letters[random.usize(..letters.len())]).collect();
            let _ = is_within("work_mem", Some(&String::from_utf8_lossy(&bytes)));
        }
    }

    #[test]
    fn values_are_compared_as_postgresql_reads_them() {
        for fits in ["64MB", "65536", " 65536 kB ", "1", "0.06GB", "067108864B"] {
            assert!(is_within("work_mem", Some(fits)), "{fits}");
        }
        let over = ["65MB", "65537", "0.07GB", "1TB", "0xFFFF", "1e9", "-1", "64 mb", "", "many"];
        for over in over {
            assert!(!is_within("work_mem", Some(over)), "{over}");
        }
        assert!(!is_within("work_mem", None) && is_within("timezone", None));
        assert!(
            is_within("temp_buffers", Some("8192")) && !is_within("temp_buffers", Some("8193"))
        );
        assert!(is_within("join_collapse_limit", Some("12")));
        assert!(!is_within("join_collapse_limit", Some("12kB")));
    }

    #[test]
    fn the_manual_has_the_same_caps() {
        let manual = include_str!("../../../docs/isolation.md");
        for (name, cap, _) in CAPS {
            assert!(manual.contains(&format!("| `{name}` | {cap} |")), "{name}");
        }
    }
}
