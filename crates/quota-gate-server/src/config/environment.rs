//! Environment variables that look like settings and are none, most often because an underscore is missing.

use std::collections::BTreeMap;

use super::ConfigError;

/// Prefix of all variables of this program.
const PREFIX: &str = "QUOTA_GATE";
/// Variables of the command line.
const OTHERS: [&str; 2] = ["QUOTA_GATE_CONFIG", "QUOTA_GATE_IMPORT_URL"];

/// Checks the names of variables. Returns a warning for each that has no effect.
///
/// # Errors
/// If the name of a setting is written with the wrong number of underscores.
pub(super) fn check<'a>(
    variables: impl Iterator<Item = (String, String)>,
    settings: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, ConfigError> {
    let settings: BTreeMap<String, &str> = settings.map(|setting| (plain(setting), setting)).collect();
    let mut warnings = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX).filter(|rest| rest.starts_with('_')) else { continue };
        if OTHERS.contains(&name.as_str()) {
            continue;
        }
        let words = plain(rest.trim_start_matches('_'));
        if let Some(setting) = settings.get(&words) {
            let meant = format!("{PREFIX}__{}", setting.to_uppercase().replace('.', "__"));
            if !name.eq_ignore_ascii_case(&meant) {
                return Err(ConfigError::Environment { given: name, meant });
            }
            continue;
        }
        let of_section = settings.values().any(|setting| {
            setting.split_once('.').is_some_and(|(section, _)| words.starts_with(&format!("{section}_")))
        });
        if of_section && !rest.starts_with("__") && !is_of_kubernetes(&name, &value) {
            warnings.push(format!(
                "environment variable {name} has no effect: settings are QUOTA_GATE__SECTION__KEY, with two underscores"
            ));
        }
    }
    Ok(warnings)
}

/// `server.stop_delay_ms`, `SERVER__STOP_DELAY_MS` → `server_stop_delay_ms`.
fn plain(name: &str) -> String {
    name.to_lowercase().replace('.', "_").replace("__", "_")
}

/// Kubernetes adds variables for each service, for example `QUOTA_GATE_SERVER_PORT=tcp://10.0.0.1:8080`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    value.contains("://")
        || name.contains("_SERVICE_")
        || ["_TCP", "_TCP_ADDR", "_TCP_PORT", "_TCP_PROTO"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: [&str; 2] = ["server.listen", "server.stop_delay_ms"];

    fn checked(name: &str, value: &str) -> Result<Vec<String>, ConfigError> {
        check([(name.to_owned(), value.to_owned())].into_iter(), SETTINGS.into_iter())
    }

    #[test]
    fn a_setting_with_the_wrong_number_of_underscores_is_refused() {
        for name in
            ["QUOTA_GATE_SERVER_STOP_DELAY_MS", "QUOTA_GATE__SERVER_STOP_DELAY_MS", "QUOTA_GATE_SERVER__STOP_DELAY_MS"]
        {
            let error = checked(name, "1").unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("QUOTA_GATE__SERVER__STOP_DELAY_MS"), "{error}");
        }
        assert!(checked("QUOTA_GATE__SERVER__STOP_DELAY_MS", "1").unwrap().is_empty());
    }

    #[test]
    fn other_variables_are_ignored_and_those_of_a_section_are_warned_about() {
        assert_eq!(checked("QUOTA_GATE_SERVER_PORT", "8080").unwrap().len(), 1);
        for (name, value) in [
            ("QUOTA_GATE_SERVER_PORT", "tcp://10.0.0.1:8080"),
            ("QUOTA_GATE_SERVER_SERVICE_HOST", "10.0.0.1"),
            ("QUOTA_GATE_SERVER_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("QUOTA_GATE_CONFIG", "gate.toml"),
            ("QUOTA_GATES", "7"),
            ("PATH", "/bin"),
        ] {
            assert!(checked(name, value).unwrap().is_empty(), "{name}");
        }
    }
}
