//! The path of one model at the upstream, whatever its name has in it.

use std::fmt::Write;

use quota_gate::domain::{InvalidInput, model_name::ModelName};

/// What a segment of a path may have in it as it is (RFC 3986: pchar), besides letters and digits.
const PLAIN: &[u8] = b"-._~!$&'()*+,;=:@";

/// Where the upstream has this model. A name that leads to another place is refused: the operator's key goes along.
pub(crate) fn model_path(name: &str) -> Result<String, InvalidInput> {
    let name = ModelName::parse(name)?;
    let name = name.as_str();
    // An upstream may decode twice, or take a backslash for a slash.
    if name.contains(['\\', '%']) || name.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(InvalidInput {
            field: "model",
            rule: "must be no path with . or .., nor have \\ or % in it".into(),
        });
    }
    let mut path = "/models/".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) {
            path.push(byte.into());
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_the_path_and_leads_nowhere_else() {
        for (name, path) in [
            ("gpt-4o", "/models/gpt-4o"),
            ("local:words=4,no-usage", "/models/local:words=4,no-usage"),
            ("accounts/x/models/llama-3..1", "/models/accounts%2Fx%2Fmodels%2Fllama-3..1"),
            ("a?b#c d", "/models/a%3Fb%23c%20d"),
            ("模", "/models/%E6%A8%A1"),
        ] {
            assert_eq!(model_path(name).unwrap(), path);
        }
        for name in ["", ".", "..", "../files", "a/../../files", "a/.", "..\\files", "..%2Ffiles", "%2e%2e/x", "a\r\nb"]
        {
            assert!(model_path(name).is_err(), "{name}");
        }
    }
}
