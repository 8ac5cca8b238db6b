//! Reads a message's user and cost from the descriptors of a request.

use crate::envoy::messages::{Descriptor, RateLimitRequest};
use quota_gate::domain::{
    InvalidInput,
    ap::Ap,
    model_costs::ModelCosts,
    model_name::ModelName,
    usage::Tokens,
    user_id::{SessionId, UserId},
};

/// Keys of the entries that the gate reads.
const USER: &str = "user";
const SESSION: &str = "session";
const MODEL: &str = "model";
const AP: &str = "ap";

/// A message, described by one of a request's descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Index of the descriptor.
    pub(super) index: usize,
    pub(super) user: UserId,
    pub(super) session: SessionId,
    pub(super) ap: Ap,
    pub(super) tokens: Tokens,
    pub(super) model: Option<ModelName>,
    /// Hits that the model's price is charged for; none if the descriptor has the cost.
    pub(super) priced_hits: Option<u32>,
}

impl Message {
    /// Reads the message from the one descriptor that names a user. Returns `None` if no descriptor does: the gate does
    /// not limit such a request.
    pub(super) fn read(request: &RateLimitRequest, costs: &ModelCosts) -> Result<Option<Self>, InvalidInput> {
        let with_user: Vec<(usize, &Descriptor)> = request
            .descriptors
            .iter()
            .enumerate()
            .filter(|(_, descriptor)| value(descriptor, USER).is_some())
            .collect();
        let (index, descriptor) = match with_user[..] {
            [] => return Ok(None),
            [one] => one,
            // A second charge could fail after the first.
            [..] => return Err(invalid("at most one descriptor may name a user".into())),
        };
        let user = UserId::parse(value(descriptor, USER).unwrap_or_default())?;
        let session = value(descriptor, SESSION).map_or_else(|| Ok(SessionId::unnamed()), SessionId::parse)?;
        let (ap_per_hit, tokens) = match value(descriptor, AP) {
            Some(ap) => {
                let ap = ap.parse().map_err(|_| invalid(format!("ap is not a number: {ap:?}")))?;
                (Ap::cost(ap)?, Tokens::ZERO)
            }
            None => costs.unseen(value(descriptor, MODEL))?,
        };
        let hits = descriptor.hits_addend.map_or_else(|| u64::from(request.hits_addend.max(1)), |hits| hits.value);
        let ap = u64::from(ap_per_hit.get()).saturating_mul(hits);
        let ap = i64::try_from(ap).unwrap_or(i64::MAX);
        let ap = if ap_per_hit == Ap::ZERO { Ap::ZERO } else { Ap::cost(ap)? };
        let model = value(descriptor, MODEL).map(ModelName::parse).transpose()?;
        let is_priced = value(descriptor, AP).is_none();
        let priced_hits = is_priced.then(|| u32::try_from(hits).unwrap_or(u32::MAX));
        Ok(Some(Self { index, user, session, ap, tokens, model, priced_hits }))
    }
}

fn value<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

fn invalid(rule: String) -> InvalidInput {
    InvalidInput { field: "descriptors", rule }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::messages::{Entry, HitsAddend};

    fn descriptor(entries: &[(&str, &str)]) -> Descriptor {
        let entry = |(key, value): &(&str, &str)| Entry { key: (*key).into(), value: (*value).into() };
        Descriptor { entries: entries.iter().map(entry).collect(), hits_addend: None }
    }

    fn read(descriptors: Vec<Descriptor>, hits_addend: u32) -> Result<Option<Message>, InvalidInput> {
        let request = RateLimitRequest { domain: "chat".into(), descriptors, hits_addend };
        let costs = ModelCosts::new(&[("default".to_owned(), 1), ("gpt-4o".to_owned(), 3)].into()).unwrap();
        Message::read(&request, &costs)
    }

    #[test]
    fn message_costs_its_ap_or_its_models_price_per_hit() {
        for (entries, hits, ap) in [
            (vec![("user", "bob")], 0, 1),
            (vec![("user", "bob"), ("model", "gpt-4o")], 1, 3),
            (vec![("user", "bob"), ("model", "gpt-4o"), ("ap", "7")], 2, 14),
        ] {
            assert_eq!(read(vec![descriptor(&entries)], hits).unwrap().unwrap().ap.get(), ap, "{entries:?}");
        }
        let mut own = descriptor(&[("user", "bob")]);
        own.hits_addend = Some(HitsAddend { value: 4 });
        let message = read(vec![descriptor(&[("path", "/")]), own], 9).unwrap().unwrap();
        assert_eq!((message.index, message.ap.get(), message.session.as_str()), (1, 4, "none"));
    }

    #[test]
    fn requests_without_a_user_pass_and_invalid_descriptors_are_rejected() {
        assert_eq!(read(vec![descriptor(&[("path", "/")])], 1).unwrap(), None);
        assert_eq!(read(vec![], 1).unwrap(), None);
        let bob = || descriptor(&[("user", "bob")]);
        let mut none = bob();
        none.hits_addend = Some(HitsAddend { value: 0 });
        let mut many = bob();
        many.hits_addend = Some(HitsAddend { value: u64::MAX });
        for wrong in [
            vec![bob(), bob()],
            vec![descriptor(&[("user", "no user")])],
            vec![descriptor(&[("user", "")])],
            vec![descriptor(&[("user", "bob"), ("ap", "x")])],
            vec![descriptor(&[("user", "bob"), ("ap", "0")])],
            vec![descriptor(&[("user", "bob"), ("session", "")])],
            vec![none],
            vec![many],
        ] {
            assert!(read(wrong.clone(), 1).is_err(), "{wrong:?}");
        }
    }
}
