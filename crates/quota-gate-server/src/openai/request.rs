//! The members of a request that the gate reads, and the one that it adds, so that the upstream reports usage.

use std::{borrow::Cow, ops::Range};

use axum::body::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::openai::{
    members::Members,
    token_meter::{Pricing, TokenMeter},
    unambiguous_keys::UnambiguousKeys,
    upstream::StreamUsage,
};
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
    /// The cost to hold.
    pub(crate) ap: Ap,
    /// What the answer costs, if it is priced by tokens.
    pub(crate) meter: Option<TokenMeter>,
    pub(crate) model: ModelName,
    /// All models that the upstream may use.
    pub(crate) models: Vec<String>,
    /// Number of answers that are asked for.
    pub(crate) answers: u32,
    /// The body for the upstream.
    pub(crate) body: Bytes,
    pub(crate) plan: Plan,
}

/// How to handle the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) api: Api,
    /// Whether to hide the event that reports usage, because the client did not ask for it.
    pub(crate) hides_usage: bool,
}

/// A duplicate member is an error: the upstream might use the other one.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    stream: Option<bool>,
    n: Option<u32>,
    stream_options: Option<StreamOptions>,
    background: Option<&'a RawValue>,
    /// Models that the upstream may use instead: `OpenRouter`'s.
    models: Option<&'a RawValue>,
    /// `LiteLLM`'s.
    fallbacks: Option<&'a RawValue>,
    context_window_fallbacks: Option<&'a RawValue>,
    content_policy_fallbacks: Option<&'a RawValue>,
}

/// Members that name models which the upstream may use instead.
const ALTERNATIVES: [&str; 4] = ["models", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks"];

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Generation {
    pub(crate) fn read(
        (api, stream_usage): (Api, StreamUsage),
        body: Bytes,
        costs: &ModelCosts,
    ) -> Result<Self, InvalidInput> {
        let invalid = |rule: String| InvalidInput { field: "body", rule };
        let fields: Fields<'_> = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
        let _: UnambiguousKeys = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
        if api == Api::Responses && fields.background.is_some_and(|background| background.get() != "false") {
            let rule = "is not supported: the gate could neither charge such a response nor return it".into();
            return Err(InvalidInput { field: "background", rule });
        }
        let answers = if api == Api::ChatCompletions { fields.n.unwrap_or(1) } else { 1 };
        if !(1..=ANSWERS_MAX).contains(&answers) {
            return Err(InvalidInput { field: "n", rule: format!("must be 1 to {ANSWERS_MAX}") });
        }
        let model = ModelName::parse(fields.model.trim())?;
        let models = fields.models()?;
        let pricing = Pricing::new(costs, &models, (api, answers), &body)?;
        let (ap, meter) = (pricing.estimate()?, pricing.meter());
        let asks_for_usage = fields.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true));
        let hides_usage = stream_usage == StreamUsage::Ask
            && api == Api::ChatCompletions
            && fields.stream == Some(true)
            && !asks_for_usage;
        let body = if hides_usage { with_usage(&body).ok_or_else(|| invalid("is not UTF-8".into()))? } else { body };
        Ok(Self { ap, meter, model, models, answers, body, plan: Plan { api, hides_usage } })
    }
}

impl Fields<'_> {
    /// All models that the upstream may use.
    fn models(&self) -> Result<Vec<String>, InvalidInput> {
        let mut models = vec![self.model.clone().into_owned()];
        let values = [self.models, self.fallbacks, self.context_window_fallbacks, self.content_policy_fallbacks];
        for (field, value) in ALTERNATIVES.into_iter().zip(values) {
            let Some(value) = value else { continue };
            let names = names(value)
                .ok_or_else(|| InvalidInput { field, rule: "must be an array of names of models".into() })?;
            models.extend(names);
        }
        Ok(models)
    }
}

/// Returns the largest maximum of output tokens that a request names. The upstream judges invalid ones.
pub(crate) fn output_tokens_max(api: Api, body: &[u8]) -> Option<u64> {
    let members = Members::of(std::str::from_utf8(body).ok()?)?;
    let names: &[&str] = match api {
        Api::ChatCompletions => &["max_completion_tokens", "max_tokens"],
        Api::Responses => &["max_output_tokens"],
    };
    names.iter().filter_map(|name| members.get(name)?.get().parse().ok()).max()
}

/// Returns the request with this model instead of its own and all alternatives. All other members stay as they are.
pub(crate) fn with_model(body: &[u8], model: &ModelName) -> Option<Bytes> {
    let members = Members::of(std::str::from_utf8(body).ok()?)?;
    let mut text = format!("{{\"model\":{}", serde_json::to_string(model.as_str()).ok()?);
    for (name, value) in members.iter().filter(|(name, _)| *name != "model" && !ALTERNATIVES.contains(name)) {
        text.push(',');
        text.push_str(&serde_json::to_string(name).ok()?);
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    Some(text.into())
}

/// Returns the models of an array: names, objects with a `model`, or objects that map a model to such an array.
fn names(value: &RawValue) -> Option<Vec<String>> {
    let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
    let mut found = Vec::new();
    for item in items {
        if let Ok(name) = serde_json::from_str::<String>(item.get()) {
            found.push(name);
            continue;
        }
        let members = Members::of(item.get())?;
        if members.raw("model").is_some() {
            found.push(members.text("model")?.into_owned());
        } else {
            for (_, value) in members.iter() {
                found.extend(names(value)?);
            }
        }
    }
    Some(found)
}

/// Returns the request with `stream_options.include_usage` set. All other bytes stay as they are.
fn with_usage(body: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let members = Members::of(text)?;
    let (place, inserted) = match members.raw("stream_options") {
        None => (end_of(0..text.len(), text)?, r#","stream_options":{"include_usage":true}"#),
        Some(options) if options.get() == "null" => (range(options, text), r#"{"include_usage":true}"#),
        Some(options) => {
            let given = Members::of(options.get())?;
            match given.raw("include_usage") {
                Some(value) => (range(value, text), "true"),
                None if given.iter().next().is_none() => {
                    (end_of(range(options, text), text)?, r#""include_usage":true"#)
                }
                None => (end_of(range(options, text), text)?, r#","include_usage":true"#),
            }
        }
    };
    Some([&text[..place.start], inserted, &text[place.end..]].concat().into())
}

/// Returns the place of a value in the text that it is a part of.
fn range(value: &RawValue, text: &str) -> Range<usize> {
    let start = value.get().as_ptr().addr() - text.as_ptr().addr();
    start..start + value.get().len()
}

/// Returns the place before the last brace.
fn end_of(object: Range<usize>, text: &str) -> Option<Range<usize>> {
    let end = object.start + text[object].rfind('}')?;
    Some(end..end)
}

#[cfg(test)]
mod tests {
    use quota_gate::domain::{model_costs::ModelPrice, token_prices::TokenPrices};

    use super::*;

    fn read(api: Api, body: &str) -> Result<Generation, InvalidInput> {
        let costs = ModelCosts::new(&[("default".to_owned(), 1), ("gpt-4o".to_owned(), 3)].into()).unwrap();
        Generation::read((api, StreamUsage::Ask), Bytes::copy_from_slice(body.as_bytes()), &costs)
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
            r#"{"model":"x","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
            r#"{"model":"x","models":["y"],"models":[]}"#,
            r#"{"model":"x","Models":["y"]}"#,
            r#"{"model":"x","models":"y"}"#,
            r#"{"model":"x","fallbacks":[7]}"#,
            r#"{"model":"x","fallbacks":[{"model":7}]}"#,
            r#"{"model":"x"} trailing"#,
        ] {
            assert!(read(Api::ChatCompletions, body).is_err(), "{body}");
        }
        // Other names, and the members of nested objects, are not restricted.
        let elsewhere = r#"{"model":"x","metadata":{"Model":"y","N":2},"models":[],"s":1}"#;
        assert!(read(Api::ChatCompletions, elsewhere).is_ok());
    }

    #[test]
    fn fallbacks_are_priced_by_the_dearest() {
        for fallbacks in [
            r#""models":["x","openai/gpt-4o"]"#,
            r#""fallbacks":["GPT-4o"]"#,
            r#""fallbacks":[{"model":"gpt-4o","temperature":1}]"#,
            r#""fallbacks":[{"x":["y","gpt-4o"]}]"#,
            r#""context_window_fallbacks":[{"x":["gpt-4o"]}]"#,
            r#""models":null,"fallbacks":[],"content_policy_fallbacks":["gpt-4o"]"#,
        ] {
            let body = format!(r#"{{"model":"x",{fallbacks},"n":2}}"#);
            assert_eq!(read(Api::ChatCompletions, &body).unwrap().ap.get(), 6, "{body}");
        }
        assert_eq!(read(Api::Responses, r#"{"model":"gpt-4o","models":["x"]}"#).unwrap().ap.get(), 3);
    }

    #[test]
    fn fallback_model_replaces_the_model_and_its_alternatives_only() {
        let free = ModelName::parse("local \"free\"").unwrap();
        let body = r#"{ "z":1.50, "model":"x", "models":["y"],"a":[ {"model":"y"} ],"fallbacks":null,"z":2 }"#;
        let replaced = with_model(body.as_bytes(), &free).unwrap();
        assert_eq!(replaced, r#"{"model":"local \"free\"","z":1.50,"a":[ {"model":"y"} ],"z":2}"#);
        assert!(with_model(b"[]", &free).is_none());
    }

    #[test]
    fn estimate_follows_the_size_and_the_largest_maximum() {
        let price = |text: &str| text.parse().unwrap();
        let prices =
            TokenPrices { input: price("0"), cached_input: price("0"), output: price("1000000"), minimum: Ap::ONE };
        let prices = [("default".to_owned(), ModelPrice::Tokens(prices))];
        let costs = ModelCosts::by_price(prices).unwrap();
        for (api, rest, ap) in [
            (Api::ChatCompletions, "", 1_000),
            (Api::ChatCompletions, r#","max_tokens":7"#, 7),
            (Api::ChatCompletions, r#","max_tokens":7,"max_completion_tokens":9"#, 9),
            (Api::ChatCompletions, r#","max_completion_tokens":9,"n":3"#, 27),
            (Api::ChatCompletions, r#","max_tokens":null"#, 1_000),
            (Api::ChatCompletions, r#","max_tokens":"7","max_output_tokens":5"#, 1_000),
            (Api::Responses, r#","max_output_tokens":5,"max_tokens":7"#, 5),
        ] {
            let body = Bytes::from(format!(r#"{{"model":"x"{rest}}}"#));
            let generation = Generation::read((api, StreamUsage::Ask), body, &costs).unwrap();
            assert_eq!(generation.ap.get(), ap, "{rest}");
            assert!(generation.meter.is_some());
        }
    }

    #[test]
    fn background_is_refused() {
        for (value, accepted) in [("true", false), ("1", false), (r#""true""#, false), ("false", true), ("null", true)]
        {
            let body = format!(r#"{{"model":"x","background":{value}}}"#);
            assert_eq!(read(Api::Responses, &body).is_ok(), accepted, "{value}");
        }
        assert!(read(Api::Responses, r#"{"model":"x","Background":true}"#).is_err());
    }

    #[test]
    fn streamed_request_asks_for_usage_and_is_otherwise_unchanged() {
        let usage = r#""stream_options":{"include_usage":true}"#;
        for (given, sent) in [
            (
                r#"{ "z":1.50, "model":"x","a":[ ],"stream":true }"#.to_owned(),
                format!(r#"{{ "z":1.50, "model":"x","a":[ ],"stream":true ,{usage}}}"#),
            ),
            (
                "{\"stream\":true,\"x\":1,\"x\":2,\"é\":12345678901234567890123,\"model\":\"\\u0078\"}\n".to_owned(),
                format!(
                    "{{\"stream\":true,\"x\":1,\"x\":2,\"é\":12345678901234567890123,\"model\":\"\\u0078\",{usage}}}\n"
                ),
            ),
            (
                r#"{"stream_options": null ,"stream":true,"model":"}"}"#.to_owned(),
                r#"{"stream_options": {"include_usage":true} ,"stream":true,"model":"}"}"#.to_owned(),
            ),
            (
                r#"{"stream_options":{ },"stream":true,"model":"x"}"#.to_owned(),
                r#"{"stream_options":{ "include_usage":true},"stream":true,"model":"x"}"#.to_owned(),
            ),
            (
                r#"{"stream_options":{"other":{"a":"}"}},"stream":true,"model":"x"}"#.to_owned(),
                r#"{"stream_options":{"other":{"a":"}"},"include_usage":true},"stream":true,"model":"x"}"#.to_owned(),
            ),
            (
                r#"{"stream_options":{"include_usage": false,"other":1},"stream":true,"model":"x"}"#.to_owned(),
                r#"{"stream_options":{"include_usage": true,"other":1},"stream":true,"model":"x"}"#.to_owned(),
            ),
        ] {
            let asked = read(Api::ChatCompletions, &given).unwrap();
            assert!(asked.plan.hides_usage);
            assert_eq!(asked.body, sent);
        }
        for (api, body) in [
            (Api::ChatCompletions, r#"{"model":"x","stream":true,"stream_options":{"include_usage":true}}"#),
            (Api::ChatCompletions, r#"{ "z":1, "model":"x", "z":2 }"#),
            (Api::Responses, r#"{"model":"x","stream":true}"#),
        ] {
            let plain = read(api, body).unwrap();
            assert!(!plain.plan.hides_usage && plain.body == body.as_bytes(), "{body}");
        }
        let costs = ModelCosts::new(&[("default".to_owned(), 1)].into()).unwrap();
        let body = Bytes::from_static(br#"{"model":"x","stream":true}"#);
        let left = Generation::read((Api::ChatCompletions, StreamUsage::Leave), body.clone(), &costs).unwrap();
        assert!(!left.plan.hides_usage && left.body == body);
    }
}
