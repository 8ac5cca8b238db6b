//! Permits for quota streams: so many in all, and so many for one user, so that no user takes those of the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use quota_gate::domain::user_id::UserId;

/// Permits of one gate.
#[derive(Debug)]
pub(crate) struct StreamPermits {
    all: Arc<Semaphore>,
    by_user: Arc<OpenStreams>,
    per_user_max: usize,
}

/// Open streams of each user who has any.
type OpenStreams = Mutex<HashMap<UserId, usize>>;

/// Allows one stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    _one_of_all: OwnedSemaphorePermit,
    _one_of_user: UserPermit,
}

#[derive(Debug)]
struct UserPermit {
    user: UserId,
    by_user: Arc<OpenStreams>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// The user has the maximum number of streams, which is this.
    OfUser(usize),
    /// The gate has the maximum number of streams.
    OfGate,
}

impl StreamPermits {
    pub(crate) fn new(all_max: usize, per_user_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all_max)), by_user: Arc::default(), per_user_max }
    }

    /// Takes a permit for a stream of this user.
    pub(crate) fn take(&self, user: &UserId) -> Result<StreamPermit, NoPermit> {
        let of_user = UserPermit::take(&self.by_user, user, self.per_user_max)?;
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| NoPermit::OfGate)?;
        Ok(StreamPermit { _one_of_all: of_all, _one_of_user: of_user })
    }
}

impl UserPermit {
    fn take(by_user: &Arc<OpenStreams>, user: &UserId, max: usize) -> Result<Self, NoPermit> {
        let mut open = by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = open.get(user).copied().unwrap_or(0);
        if streams >= max {
            return Err(NoPermit::OfUser(max));
        }
        open.insert(user.clone(), streams + 1);
        drop(open);
        Ok(Self { user: user.clone(), by_user: Arc::clone(by_user) })
    }
}

impl Drop for UserPermit {
    fn drop(&mut self) {
        let mut open = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut streams) = open.entry(self.user.clone()) {
            *streams.get_mut() -= 1;
            if *streams.get() == 0 {
                streams.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_no_more_than_the_users_share_and_all_no_more_than_the_gates() {
        let permits = StreamPermits::new(3, 2);
        let (ann, bob) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
        let first = permits.take(&ann).unwrap();
        let _second = permits.take(&ann).unwrap();
        assert_eq!(permits.take(&ann).unwrap_err(), NoPermit::OfUser(2));
        let bobs = permits.take(&bob).unwrap();
        assert_eq!(permits.take(&bob).unwrap_err(), NoPermit::OfGate);
        drop((first, bobs));
        assert!(permits.take(&ann).is_ok());
        // Users without streams take no memory, also after a refusal.
        assert_eq!(permits.by_user.lock().unwrap().len(), 1);
    }
}
