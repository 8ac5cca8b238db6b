//! The protocol as states and actions. Mirrors `src/gate/opening.rs`, `src/jobs/flusher.rs`, `lua/partition/` and
//! `lua/operation/call.lua`; change both together.

use stateright::{Model, Property};

use crate::state::{Entry, Flusher, GENESIS, Opener, Postgres, Redis, State, Stream, charges_of, lose};

/// Size of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocol {
    pub(crate) charges: u8,
    pub(crate) losses: u8,
    pub(crate) gates: usize,
    pub(crate) flushers: usize,
    pub(crate) openers: usize,
    /// Maximum number of generations; keeps the search finite.
    pub(crate) generations: u8,
    /// Rule to break, if any.
    pub(crate) broken: Option<Rule>,
}

/// The rules that the code keeps. Each is necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The flusher finds the last flushed entry before it trusts the rest (`Flusher::flush_from`).
    Anchor,
    /// An opening begins a generation higher than any seen (`Inner::open`).
    Generation,
    /// The flusher trims only what is committed (`Flusher::flush_from`).
    TrimAfterCommit,
    /// A partition opens only if its streams still end where the drain ended (`open.lua`).
    CompareStreams,
    /// A drain adds only events that were not in Postgres (`Postgres::drain`).
    CountOnlyInserted,
    /// The fence names the process (`fence.rs`).
    FenceNamesProcess,
    /// A stalled opening is taken over, even while the fence is there (`Flusher::flush_from`).
    TakeOver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Charge(usize),
    Learn(usize),
    FlushRead(usize),
    FlushCommit(usize),
    FlushTrim(usize),
    OpenLook(usize),
    OpenBegin(usize),
    OpenClose(usize),
    OpenRead(usize),
    OpenDrain(usize),
    OpenOpen(usize),
    OpenFinish(usize),
    OpenDie(usize),
    Copy,
    Wipe,
    /// An older copy, in another process.
    Restore,
    /// An older copy, in the same process as far as open connections can see: Redis was a replica of it for a while.
    RestoreInPlace,
}

impl Action {
    /// Charges and faults, as opposed to the steps that handle them.
    const fn is_trouble(self) -> bool {
        matches!(
            self,
            Self::Charge(_) | Self::OpenDie(_) | Self::Copy | Self::Wipe | Self::Restore | Self::RestoreInPlace
        )
    }
}

impl Protocol {
    pub(crate) const SMALL: Self =
        Self { charges: 1, losses: 1, gates: 2, flushers: 1, openers: 1, generations: 5, broken: None };

    fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// The fence that a call of this generation names.
    fn named(&self, generation: u8, process: u8) -> (u8, u8) {
        (generation, if self.keeps(Rule::FenceNamesProcess) { process } else { 0 })
    }

    /// The entries from the watermark on, if the anchor is there (`Flusher::read`).
    fn readable<'a>(&self, state: &'a State) -> Option<(Entry, &'a [Entry])> {
        let from = state.postgres.watermark?;
        let entries = &state.redis.stream(state.postgres.generation)?.entries;
        let at = entries.partition_point(|entry| entry.id < from.id);
        let entries = &entries[at..];
        match entries.first() {
            Some(anchor) if *anchor == from => Some((from, &entries[1..])),
            _ if self.keeps(Rule::Anchor) => None,
            _ => Some((from, &entries[entries.partition_point(|entry| entry.id <= from.id)..])),
        }
    }

    /// The partition is visibly not open: STALE, a missing anchor, or an opening that was begun.
    fn needs_opening(&self, state: &State) -> bool {
        let open = self.named(state.postgres.generation, state.process);
        let begun = state.postgres.watermark.is_none();
        state.redis.fence != Some(open)
            || if begun { self.keeps(Rule::TakeOver) } else { self.readable(state).is_none() }
    }

    /// Nothing is running or waiting.
    fn is_quiet(&self, state: &State) -> bool {
        state.flushers.iter().all(|flusher| *flusher == Flusher::Idle)
            && state.openers.iter().all(|opener| *opener == Opener::Idle)
            && !self.needs_opening(state)
            && self.readable(state).is_some_and(|(_, new)| new.is_empty())
    }

    /// Runs a random history: faults for a while, then calm until all is quiet. Returns what went wrong, and how.
    pub(crate) fn walk(&self, seed: u64) -> Result<(), (&'static str, Vec<Action>)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut state = self.init_states().remove(0);
        let mut trail = Vec::new();
        for step in 0..600 {
            let calm = step > 150;
            let mut actions = Vec::new();
            self.actions(&state, &mut actions);
            // Faults are rare, so charges and flushes happen in between.
            actions.retain(|action| {
                !action.is_trouble() || (!calm && (matches!(action, Action::Charge(_)) || random.u8(..5) == 0))
            });
            let Some(action) = random.choice(actions) else {
                if calm {
                    break;
                }
                continue;
            };
            trail.push(action);
            state = self.next_state(&state, action).expect("a listed action is possible");
            if state.doubled {
                return Err(("counted twice", trail));
            }
            if state.misled {
                return Err(("decided by an older copy", trail));
            }
            if calm && self.is_quiet(&state) {
                break;
            }
        }
        if !self.is_quiet(&state) {
            return Err(("never quiet", trail));
        }
        if state.missing() != 0 { Err(("lost", trail)) } else { Ok(()) }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let redis =
            Redis { fence: Some(self.named(1, 1)), streams: vec![Stream { generation: 1, entries: vec![GENESIS] }] };
        vec![State {
            copy: redis.clone(),
            redis,
            process: 1,
            stale: false,
            postgres: Postgres { generation: 1, watermark: Some(GENESIS), rows: 0 },
            gates: vec![1; self.gates],
            flushers: vec![Flusher::Idle; self.flushers],
            openers: vec![Opener::Idle; self.openers],
            charges: 0,
            losses: 0,
            acknowledged: 0,
            lost: 0,
            doubled: false,
            misled: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (gate, generation) in state.gates.iter().enumerate() {
            let open = state.redis.fence == Some(self.named(*generation, state.process));
            if state.charges < self.charges && open && state.redis.stream(*generation).is_some() {
                actions.push(Action::Charge(gate));
            }
            if *generation != state.postgres.generation {
                actions.push(Action::Learn(gate));
            }
        }
        for (number, flusher) in state.flushers.iter().enumerate() {
            match flusher {
                Flusher::Idle if self.readable(state).is_some_and(|(_, new)| !new.is_empty()) => {
                    actions.push(Action::FlushRead(number));
                }
                Flusher::Idle => {}
                Flusher::Read { .. } => actions.push(Action::FlushCommit(number)),
                Flusher::Committed { .. } => actions.push(Action::FlushTrim(number)),
            }
        }
        for (number, opener) in state.openers.iter().enumerate() {
            let next = match opener {
                Opener::Idle => {
                    if self.needs_opening(state) && state.postgres.generation < self.generations {
                        actions.push(Action::OpenLook(number));
                    }
                    continue;
                }
                Opener::Looked { .. } => Action::OpenBegin(number),
                Opener::Begun { .. } => Action::OpenClose(number),
                Opener::Closed { .. } => Action::OpenRead(number),
                Opener::Read { .. } => Action::OpenDrain(number),
                Opener::Drained { .. } => Action::OpenOpen(number),
                Opener::Opened { .. } => Action::OpenFinish(number),
            };
            actions.extend([next, Action::OpenDie(number)]);
        }
        if state.losses < self.losses {
            if state.redis != state.copy {
                actions.extend([Action::Copy, Action::RestoreInPlace]);
            }
            actions.extend([Action::Wipe, Action::Restore]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Charge(gate) => state.charge(gate),
            Action::Learn(gate) => state.gates[gate] = state.postgres.generation,
            Action::FlushRead(number) => self.flush_read(&mut state, number),
            Action::FlushCommit(number) => state.flush_commit(number),
            Action::FlushTrim(number) => state.flush_trim(number),
            Action::OpenLook(number) => {
                state.openers[number] =
                    Opener::Looked { generation: state.postgres.generation, fence: state.redis.fence };
            }
            Action::OpenDie(number) => state.openers[number] = Opener::Idle,
            Action::OpenBegin(number)
            | Action::OpenClose(number)
            | Action::OpenRead(number)
            | Action::OpenDrain(number)
            | Action::OpenOpen(number)
            | Action::OpenFinish(number) => {
                let opener = std::mem::replace(&mut state.openers[number], Opener::Idle);
                state.openers[number] = self.open(&mut state, opener);
            }
            Action::Copy => state.copy = state.redis.clone(),
            Action::RestoreInPlace => {
                let before = (state.process, state.stale);
                let copy = state.copy.clone();
                lose(&mut state, copy);
                (state.process, state.stale) = before;
            }
            Action::Wipe => lose(&mut state, Redis { fence: None, streams: vec![] }),
            Action::Restore => {
                let copy = state.copy.clone();
                lose(&mut state, copy);
            }
        }
        Some(state)
    }

    /// Limits the generation in Redis, which openers that die after their fourth step could otherwise raise forever.
    fn within_boundary(&self, state: &State) -> bool {
        state.redis.streams.iter().all(|stream| stream.generation <= self.generations + 2)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no charge counts twice (I4)", |_, state: &State| !state.doubled),
            Property::always("each acknowledged charge that survived is in Postgres (I3)", |protocol: &Self, state| {
                !protocol.is_quiet(state) || state.missing() == 0
            }),
            Property::always("no older copy of the records decides (I1, I7)", |_, state: &State| !state.misled),
        ]
    }
}

impl Protocol {
    fn flush_read(&self, state: &mut State, number: usize) {
        let generation = state.postgres.generation;
        let Some((from, new)) = self.readable(state).map(|(from, new)| (from, new.to_vec())) else { return };
        if !self.keeps(Rule::TrimAfterCommit)
            && let Some(stream) = state.redis.stream_mut(generation)
        {
            let keep = new.last().map_or(0, |entry| entry.id);
            stream.entries.retain(|entry| entry.id >= keep);
        }
        state.flushers[number] = Flusher::Read { generation, from, new };
    }

    /// Steps 0 to 5 of an opening. A condition that does not hold ends the attempt.
    fn open(&self, state: &mut State, opener: Opener) -> Opener {
        match opener {
            Opener::Idle => Opener::Idle,
            Opener::Looked { generation, fence } => {
                if state.postgres.generation != generation {
                    return Opener::Idle;
                }
                // From here on no flush commits.
                state.postgres.watermark = None;
                Opener::Begun { generation, fence }
            }
            Opener::Begun { generation, fence } => {
                if state.redis.fence != fence {
                    return Opener::Idle;
                }
                state.redis.fence = None;
                Opener::Closed { generation, highest: generation.max(fence.map_or(0, |(of, _)| of)) }
            }
            Opener::Closed { generation, highest } => {
                let streams = state.redis.streams.clone();
                let highest = streams.iter().map(|stream| stream.generation).fold(highest, u8::max);
                Opener::Read { generation, highest, streams }
            }
            Opener::Read { generation, highest, streams } => {
                if state.postgres.generation != generation || state.postgres.watermark.is_some() {
                    return Opener::Idle;
                }
                let charges = charges_of(streams.iter().flat_map(|stream| &stream.entries));
                state.doubled |= !self.keeps(Rule::CountOnlyInserted) && state.postgres.rows & charges != 0;
                state.postgres.rows |= charges;
                Opener::Drained { generation, highest, streams }
            }
            Opener::Drained { generation, highest, streams } => {
                let ends = |streams: &[Stream]| -> Vec<_> {
                    streams.iter().map(|stream| (stream.generation, stream.entries.last().copied())).collect()
                };
                let unchanged = ends(&state.redis.streams) == ends(&streams) || !self.keeps(Rule::CompareStreams);
                if state.redis.fence.is_some() || !unchanged {
                    return Opener::Idle;
                }
                let new = if self.keeps(Rule::Generation) { highest + 1 } else { generation };
                let fence = Some(self.named(new, state.process));
                // Records of older generations are loaded from Postgres again.
                state.stale = false;
                state.redis = Redis { fence, streams: vec![Stream { generation: new, entries: vec![GENESIS] }] };
                Opener::Opened { generation, new }
            }
            Opener::Opened { generation, new } => {
                if state.postgres.generation == generation && state.postgres.watermark.is_none() {
                    state.postgres.generation = new;
                    state.postgres.watermark = Some(GENESIS);
                }
                Opener::Idle
            }
        }
    }
}
