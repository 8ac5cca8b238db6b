//! The members of a request that the gate reads, and the one that it adds, so that the upstream reports usage.

use std::{borrow::Cow, collections::BTreeMap};

use axum::body::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::openai::unambiguous_keys::UnambiguousKeys;
use quota_gate::domain::{InvalidInput, ap::Ap, model_costs::ModelCosts, model_name::ModelName};

/// Maximum number of answers to one message.
const ANSWERS_MAX: u32 = 128;

/// The two APIs that generate answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    ChatCompletions,
    Responses,
}

/// A valid request.
#[derive(Debug)]
pub(crate) struct Generation {
    /// The message's cost.
    pub(crate) ap: Ap,
    pub(crate) model: ModelName,
    /// The body for the upstream.
    pub(crate) body: Bytes,
    pub(crate) plan: Plan,
}

/// How to handle the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) api: Api,
    /// Whether to drop the event that reports usage, because the client did not ask for it.
    pub(crate) drops_usage: bool,
}

/// A duplicate member is an error: the upstream might use the other one.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    stream: Option<bool>,
    n: Option<u32>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Generation {
    pub(crate) fn read(api: Api, body: Bytes, costs: &ModelCosts) -> Result<Self, InvalidInput> {
        let invalid = |rule: String| InvalidInput { field: "body", rule };
        let fields: Fields<'_> = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
        let _: UnambiguousKeys = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
        let answers = if api == Api::ChatCompletions { fields.n.unwrap_or(1) } else { 1 };
        if !(1..=ANSWERS_MAX).contains(&answers) {
            return Err(InvalidInput { field: "n", rule: format!("must be 1 to {ANSWERS_MAX}") });
        }
        let model = ModelName::parse(&fields.model)?;
        // Each answer is a separate generation.
        let ap = Ap::cost(i64::from(costs.of(&fields.model).get()) * i64::from(answers))?;
        let asks_for_usage = fields.stream_options.is_some_and(|options| options.include_usage == Some(true));
        let drops_usage = api == Api::ChatCompletions && fields.stream == Some(true) && !asks_for_usage;
        let body = if drops_usage { with_usage(&body).map_err(|error| invalid(error.to_string()))? } else { body };
        Ok(Self { ap, model, body, plan: Plan { api, drops_usage } })
    }
}

/// Returns the request with `stream_options.include_usage` set. All other values stay as written.
fn with_usage(body: &[u8]) -> serde_json::Result<Bytes> {
    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(body)?;
    let options = match members.get("stream_options") {
        Some(options) => {
            serde_json::from_str::<Option<BTreeMap<String, &RawValue>>>(options.get())?.unwrap_or_default()
        }
        None => BTreeMap::new(),
    };
    let yes = serde_json::value::to_raw_value(&true)?;
    let mut options: BTreeMap<&str, &RawValue> = options.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    options.insert("include_usage", &yes);
    let options = serde_json::value::to_raw_value(&options)?;
    members.insert("stream_options".into(), &options);
    serde_json::to_vec(&members).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(api: Api, body: &str) -> Result<Generation, InvalidInput> {
        let costs = ModelCosts::new(&[("default".to_owned(), 1), ("gpt-4o".to_owned(), 3)].into()).unwrap();
        Generation::read(api, Bytes::copy_from_slice(body.as_bytes()), &costs)
    }

    #[test]
    fn message_costs_its_models_price_per_answer() {
        for (body, ap) in
            [(r#"{"model":"x"}"#, 1), (r#"{"model":"gpt-4o"}"#, 3), (r#"{"model":"gpt-\u0034o","n":5}"#, 15)]
        {
            assert_eq!(read(Api::ChatCompletions, body).unwrap().ap.get(), ap, "{body}");
        }
        assert_eq!(read(Api::Responses, r#"{"model":"gpt-4o","n":5}"#).unwrap().ap.get(), 3);
    }

    #[test]
    fn invalid_and_ambiguous_requests_are_rejected() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"model":7}"#,
            r#"{"model":""}"#,
            r#"{"model":"cheap","model":"gpt-4o"}"#,
            r#"{"model":"cheap","mod\u0065l":"gpt-4o"}"#,
            r#"{"model":"cheap","Model":"gpt-4o"}"#,
            r#"{"model":"cheap","MOD\u0045L":"gpt-4o"}"#,
            r#"{"model":"cheap","N":128}"#,
            r#"{"model":"cheap","ſtream":true}"#,
            r#"{"model":"cheap","\u017ftream_optionS":null}"#,
            r#"{"model":"x","n":0}"#,
            r#"{"model":"x","n":129}"#,
            r#"{"model":"x","stream":"yes"}"#,
            r#"{"model":"x"} trailing"#,
        ] {
            assert!(read(Api::ChatCompletions, body).is_err(), "{body}");
        }
        // Other names, and the members of nested objects, are not restricted.
        let elsewhere = r#"{"model":"x","metadata":{"Model":"y","N":2},"models":[],"s":1}"#;
        assert!(read(Api::ChatCompletions, elsewhere).is_ok());
    }

    #[test]
    fn streamed_request_asks_for_usage_and_is_otherwise_unchanged() {
        let body = r#"{"model":"x","stream":true,"seed":12345678901234567890123,"stream_options":{"other":1.50}}"#;
        let asked = read(Api::ChatCompletions, body).unwrap();
        assert!(asked.plan.drops_usage);
        let text = std::str::from_utf8(&asked.body).unwrap();
        assert!(text.contains("12345678901234567890123") && text.contains("1.50"), "{text}");
        let options = serde_json::from_str::<Value>(text).unwrap()["stream_options"].clone();
        assert_eq!(options, json!({"other": 1.5, "include_usage": true}));
        for (api, body) in [
            (Api::ChatCompletions, r#"{"model":"x","stream":true,"stream_options":{"include_usage":true}}"#),
            (Api::ChatCompletions, r#"{"model":"x"}"#),
            (Api::Responses, r#"{"model":"x","stream":true}"#),
        ] {
            let plain = read(api, body).unwrap();
            assert!(!plain.plan.drops_usage && plain.body == body.as_bytes(), "{body}");
        }
        for options in ["null", "{}", r#"{"include_usage":false}"#] {
            let body = format!(r#"{{"model":"x","stream":true,"stream_options":{options}}}"#);
            assert!(read(Api::ChatCompletions, &body).unwrap().plan.drops_usage, "{options}");
        }
    }
}
