//! The upstream's path of one model, with the name percent-encoded.

use std::fmt::Write;

use quota_gate::domain::{InvalidInput, model_name::ModelName};

/// Characters that a path segment may contain unencoded besides letters and digits (RFC 3986: pchar).
const PLAIN: &[u8] = b"-._~!$&'()*+,;=:@";

/// Returns the upstream's path of this model. Rejects a name that could lead to another path, because the request
/// carries the operator's key.
pub(crate) fn model_path(name: &str) -> Result<String, InvalidInput> {
    let name = ModelName::parse(name)?;
    let name = name.as_str();
    // An upstream may decode twice, or treat a backslash as a slash.
    if name.contains(['\\', '%']) || name.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(InvalidInput {
            field: "model",
            rule: "must not contain \\ or %, or . or .. as a path segment".into(),
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
    fn model_name_stays_one_path_segment() {
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
