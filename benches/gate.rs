//! The library in process, against one call of Redis per request.

use std::{sync::Arc, time::Duration};

use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Decision, Settled},
        hold::Ttl,
        usage::Tokens,
        user_id::UserId,
    },
    gate::{Commit, Consume, Gate, Reserve},
};
use redis::aio::MultiplexedConnection;

use crate::support::{
    Scale,
    callers::{Act, Work, work},
    pipe,
    report::{Axis, Plot, Section, Target},
    rounds::Rounds,
    stores::{Stores, compact, forget_journal, session, users, warm},
    timings::{Timings, line},
};

const INCRBY: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";

/// The operation that a caller repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// One scripted INCRBY per request, on a multiplexed connection shared by all callers.
    Incrby,
    /// The gate's own decision, one call per request on that connection: the baseline for the batcher.
    OneCallEach,
    Consume,
    ConsumeOneUser,
    ReserveAndCommit,
    Peek,
}

const SIDES: [(&str, Side); 6] = [
    ("scripted INCRBY, one call each", Side::Incrby),
    ("the decision, one call each", Side::OneCallEach),
    ("consume", Side::Consume),
    ("consume, a single user", Side::ConsumeOneUser),
    ("reserve + commit", Side::ReserveAndCommit),
    ("peek", Side::Peek),
];

#[derive(Clone)]
struct Bench {
    gate: Gate,
    users: Arc<[UserId]>,
    connection: MultiplexedConnection,
    incrby: redis::Script,
    decisions: Arc<[redis::Cmd]>,
}

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "gate",
        scale,
        "the gate in process",
        "The callers of one process each wait for an answer before the next request, on one runtime thread; Redis has the other core. \
         The baselines use one multiplexed connection shared by all callers: a scripted INCRBY per request, and the gate's own \
         decision, one call per request. The flusher is stopped and the journal is dropped between rounds (flush and load measure \
         it). Redis writes its append-only file.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let app = stores.app().await?;
    let users = users(scale.of(100, 20_000, 100_000));
    let connection = stores.redis().await?;
    let incrby = redis::Script::new(INCRBY);
    let mut bench = Bench { gate: app.gate.clone(), users, connection, incrby, decisions: [].into() };
    warm(&app.gate, &bench.users).await?;

    let counts: &[usize] = scale.of(&[4], &[1, 32, 256, 1024], &[1, 32, 256, 1024]);
    let time = scale.of(Duration::from_millis(20), Duration::from_millis(250), Duration::from_secs(1));
    let mut results = vec![vec![Timings::default(); SIDES.len()]; counts.len()];
    let mut ceilings = Rounds::default();
    for _ in 0..scale.of(1, 3, 7) {
        ceilings.push(pipe::ceiling(&stores.redis, &bench.gate, &bench.users, 64, time)?);
        forget_journal(&mut bench.connection.clone()).await?;
        compact(&mut bench.connection.clone()).await?;
        for (&callers, results) in counts.iter().zip(&mut results) {
            bench.decisions = pipe::decisions(&stores.redis, &bench.gate, &bench.users)?;
            for ((_, side), results) in SIDES.iter().zip(results) {
                let done = bench.side(*side, callers, time).await;
                forget_journal(&mut bench.connection.clone()).await?;
                results.push(&done);
            }
        }
    }
    report(section, counts, &results, &ceilings);
    Ok(())
}

fn report(section: &mut Section, counts: &[usize], results: &[Vec<Timings>], ceilings: &Rounds) {
    let index = |side: Side| SIDES.iter().position(|(_, known)| *known == side).expect("a known side");
    let rows = counts.iter().zip(results).flat_map(|(callers, results)| {
        SIDES.iter().zip(results).map(move |((name, _), done)| done.row(format!("{callers}: {name}"), &results[0]))
    });
    let columns = ["callers: operation", "per second", "÷ INCRBY", "p50", "p99"];
    section.table("Throughput and latency by number of callers", &columns, rows.collect());

    let at = |callers: usize, side: Side| {
        let place = counts.iter().position(|count| *count == callers).unwrap_or(0);
        &results[place][index(side)]
    };
    let (consume, one_each) = (at(256, Side::Consume), at(256, Side::OneCallEach));
    section.ratio("gate, 256 callers ÷ script at 64 per call", consume.rate.over(ceilings), Some(Target::AtLeast(0.6)));
    let over = consume.rate.over(&one_each.rate);
    section.ratio("gate, 256 callers ÷ the decision, one call per request", over, Some(Target::AtLeast(1.5)));
    let over = consume.rate.over(&at(256, Side::Incrby).rate);
    section.ratio("gate, 256 callers ÷ scripted INCRBY, one call per request", over, None);
    let alone = at(1, Side::Consume).p50_us.over(&at(1, Side::Incrby).p50_us);
    let what = "one caller: p50 of the gate ÷ p50 of a scripted INCRBY";
    section.ratio(what, alone, Some(Target::AtMost(1.3)));
    let pairs = at(256, Side::ReserveAndCommit).rate.over(&consume.rate);
    section.ratio("reserve + commit ÷ consume, pairs per second, 256 callers", pairs, Some(Target::AtLeast(0.5)));

    let of = |side: Side| results.iter().map(move |all| &all[index(side)]);
    section.plot(Plot {
        title: "Throughput against latency, 1 to 1,024 callers".into(),
        x: Axis { label: "operations per second".into(), logarithmic: false },
        y: Axis { label: "microseconds".into(), logarithmic: true },
        lines: vec![
            line("consume, p50", of(Side::Consume), |timings| &timings.p50_us),
            line("consume, p99", of(Side::Consume), |timings| &timings.p99_us),
            line("INCRBY, p50", of(Side::Incrby), |timings| &timings.p50_us),
            line("INCRBY, p99", of(Side::Incrby), |timings| &timings.p99_us),
        ],
    });
}

impl Bench {
    async fn side(&self, side: Side, callers: usize, time: Duration) -> Work {
        work(callers, time, |number| {
            let this = self.clone();
            let mut pick = fastrand::Rng::with_seed(number as u64);
            Act(move || {
                let user = match side {
                    Side::ConsumeOneUser => this.users[0].clone(),
                    _ => this.users[pick.usize(..this.users.len())].clone(),
                };
                this.clone().act(side, user)
            })
        })
        .await
    }

    async fn act(mut self, side: Side, user: UserId) {
        match side {
            Side::Incrby => {
                let key = format!("incrby:{user}");
                let _: u64 =
                    self.incrby.key(key).arg(1).invoke_async(&mut self.connection).await.expect("Redis answers");
            }
            Side::OneCallEach => {
                let decision = &self.decisions[fastrand::usize(..self.decisions.len())];
                let _: redis::Value = decision.query_async(&mut self.connection).await.expect("Redis answers");
            }
            Side::Consume | Side::ConsumeOneUser => {
                let request = Consume {
                    user,
                    session: session(),
                    ap: Ap::ONE,
                    tokens: Tokens::default(),
                    model: None,
                    idempotency_key: None,
                };
                assert!(matches!(self.gate.consume(request).await, Ok(Decision::Allowed(_))));
            }
            Side::ReserveAndCommit => {
                let ttl = Ttl::from_seconds(60).expect("a time to live");
                let request = Reserve { user, session: session(), ap: Ap::ONE, ttl, idempotency_key: None };
                let Ok(Decision::Allowed(reserved)) = self.gate.reserve(request).await else { panic!("no hold") };
                let id = self.gate.reservation_id(&reserved.reservation);
                let commit = Commit::default();
                let committed = self.gate.commit(&id, commit).await.ok().and_then(Settled::now);
                assert!(committed.is_some_and(|committed| committed.charged == Ap::ONE));
            }
            Side::Peek => {
                assert!(self.gate.quota(&user).await.is_ok());
            }
        }
    }
}
