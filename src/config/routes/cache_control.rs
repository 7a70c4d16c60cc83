//! `cache_control`: what is said to caches, for all files of a route or by pattern.

use std::{ops::RangeInclusive, time::Duration};

use super::{ITEMS_MAX, is_field_value};
use crate::{
    config::{document::Value, field::Field, settings::CacheRule},
    error::Result,
};

/// Longest pattern, in bytes: it is compared with paths that clients choose.
const PATTERN_BYTES_MAX: usize = 255;

/// Ten years: past any use, and far from the end of the calendar.
const EXPIRES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(87_600 * 3600);

/// One value for all files, or a list of rules of which the first that matches counts.
pub(super) fn read_cache_control(field: &Field<'_>) -> Result<Vec<CacheRule>> {
    if let Value::Text(_) = field.node.value {
        return Ok(vec![CacheRule {
            pattern: String::from("*"),
            value: Some(read_value(field)?),
            expires: None,
        }]);
    }
    field.items(ITEMS_MAX)?.iter().map(read_rule).collect()
}

fn read_rule(item: &Field<'_>) -> Result<CacheRule> {
    const KEYS: [&str; 3] = ["pattern", "value", "expires"];
    let (mut pattern, mut value, mut expires) = (None, None, None);
    for entry in item.section()? {
        match entry.key {
            "pattern" => pattern = Some(read_pattern(&entry)?),
            "value" => value = Some(read_value(&entry)?),
            "expires" => expires = Some(entry.seconds(EXPIRES)?),
            _ => return Err(entry.unknown(&KEYS, &[])),
        }
    }
    let pattern = pattern.ok_or_else(|| item.error(format!("{} needs a pattern", item.path)))?;
    if value.is_none() && expires.is_none() {
        return Err(item.error(format!("{} needs a value or expires", item.path)));
    }
    Ok(CacheRule { pattern, value, expires })
}

fn read_pattern(field: &Field<'_>) -> Result<String> {
    let pattern = field.text()?;
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(field.error(format!("{} is longer than {PATTERN_BYTES_MAX} bytes", field.path)));
    }
    Ok(pattern.to_owned())
}

fn read_value(field: &Field<'_>) -> Result<String> {
    let value = field.text()?;
    if is_field_value(value) {
        Ok(value.to_owned())
    } else {
        Err(field.wrong("the value of Cache-Control, such as public, max-age=3600"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{routes::tests::one, settings::Action};

    fn rules(text: &str) -> Result<Vec<CacheRule>, String> {
        one(&format!("{{ root: a, cache_control: {text} }}")).map(|route| match route.action {
            Action::Files(files) => files.cache_control,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn one_value_is_a_rule_for_every_file() {
        let rule = CacheRule { pattern: "*".into(), value: Some("no-cache".into()), expires: None };
        assert_eq!(rules("no-cache"), Ok(vec![rule]));
        assert!(rules("\" no-cache\"").unwrap_err().contains("must be the value of Cache-Control"));
        assert!(rules("3").is_err());
    }

    #[test]
    fn rules_have_a_pattern_and_something_to_say() {
        let read = rules(
            "[{ pattern: \"*.css\", value: \"public, max-age=60\", expires: 1m }, { pattern: \"*\", expires: 0 }]",
        );
        let hour = |seconds| Some(Duration::from_secs(seconds));
        let css = CacheRule {
            pattern: "*.css".into(),
            value: Some("public, max-age=60".into()),
            expires: hour(60),
        };
        let rest = CacheRule { pattern: "*".into(), value: None, expires: hour(0) };
        assert_eq!(read, Ok(vec![css, rest]));
        assert!(rules("[{ value: a }]").unwrap_err().ends_with("routes[0].cache_control[0] needs a pattern"));
        assert!(rules("[{ pattern: a }]").unwrap_err().ends_with("needs a value or expires"));
        assert!(rules("[{ pattern: a, valu: b }]").unwrap_err().contains("unknown key \"valu\""));
    }

    #[test]
    fn patterns_and_times_are_bounded() {
        let pattern = |bytes: usize| rules(&format!("[{{ pattern: {}, value: a }}]", "p".repeat(bytes)));
        assert!(pattern(PATTERN_BYTES_MAX).is_ok());
        assert!(pattern(PATTERN_BYTES_MAX + 1).unwrap_err().contains("longer than 255 bytes"));
        let expires = |time: &str| rules(&format!("[{{ pattern: a, expires: {time} }}]"));
        assert!(expires("87600h").is_ok());
        assert!(expires("87601h").unwrap_err().contains("must be a time from 0s to 87600h"));
        assert!(expires("1500ms").unwrap_err().contains("must be a time in whole seconds"));
        let many = |count: usize| rules(&format!("[{}]", vec!["{ pattern: a, value: b }"; count].join(", ")));
        assert!(many(ITEMS_MAX).is_ok());
        assert!(many(ITEMS_MAX + 1).is_err());
    }
}
