//! A user of the library that sends one message after another.

use std::sync::Arc;

use quota_gate::{
    domain::{ap::Ap, decision::Decision, usage::Tokens, user_id::UserId},
    gate::{Consume, Gate},
};

use super::{callers::AsyncCall, stores::session};

/// Sends messages of 1 AP from users drawn at random. Each message must be admitted.
#[derive(Clone)]
pub(crate) struct RespClient {
    gate: Gate,
    users: Arc<[UserId]>,
    /// Ranks of users, repeated by their share of messages. `None` draws users evenly.
    popular: Option<Arc<[usize]>>,
    pick: fastrand::Rng,
}

impl RespClient {
    pub(crate) fn new(gate: &Gate, users: &Arc<[UserId]>, popular: Option<&Arc<[usize]>>, number: usize) -> Self {
        let pick = fastrand::Rng::with_seed(number as u64);
        Self { gate: gate.clone(), users: Arc::clone(users), popular: popular.cloned(), pick }
    }

    /// Returns a copy that draws other users.
    pub(crate) fn with_number(&self, number: usize) -> Self {
        Self { pick: fastrand::Rng::with_seed(number as u64), ..self.clone() }
    }
}

impl AsyncCall for RespClient {
    async fn act(&mut self) {
        let rank = match &self.popular {
            Some(popular) => popular[self.pick.usize(..popular.len())],
            None => self.pick.usize(..self.users.len()),
        };
        let decision = self.gate.consume(message(self.users[rank].clone())).await;
        assert!(matches!(decision, Ok(Decision::Allowed(_))), "{decision:?}");
    }
}

/// Returns a message of 1 AP.
pub(crate) fn message(user: UserId) -> Consume {
    let tokens = Tokens::new(412).expect("a number of tokens");
    Consume { user, session: session(), ap: Ap::ONE, tokens, model: None, idempotency_key: None }
}

/// Draws ranks by Zipf's law (exponent 1): the first user sends twice as many messages as the second.
pub(crate) fn zipf(users: usize, draws: usize) -> Arc<[usize]> {
    let mut sums = Vec::with_capacity(users);
    let mut sum = 0.0;
    for rank in 1..=users {
        sum += 1.0 / super::text::count(rank);
        sums.push(sum);
    }
    let mut pick = fastrand::Rng::with_seed(3);
    (0..draws).map(|_| sums.partition_point(|below| *below < pick.f64() * sum).min(users - 1)).collect()
}
