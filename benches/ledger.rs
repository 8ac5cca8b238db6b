//! Alternative designs: a ledger of credits, and one transaction per message.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quota_gate::{
    domain::{ap::Ap, decision::Decision, hold::Ttl, usage::Tokens, user_id::UserId},
    gate::{Gate, Reserve},
};
use sqlx::PgPool;

use crate::support::{
    Scale,
    callers::{Act, Work, work},
    report::{Section, Target},
    rounds::Rounds,
    stores::{Stores, forget_journal, run_sql, session, users, warm},
    text::{self, count},
};

/// With 10,100 rows per day, about seven messages per day for all but the heavy users.
const USERS: usize = 1_000;
/// Users who send hundreds of messages per day.
const HEAVY_USERS: usize = 10;
const HEAVY_ROWS_PER_DAY: usize = 300;
const ROWS_PER_DAY: usize = 10_100;
/// One generation in twenty fails: a refund row, or a release.
const FAILS_ONE_IN: usize = 20;
/// Callers that send concurrently.
const SENDERS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Design {
    /// A sum, a debit row per message, a refund row per failure.
    Ledger,
    /// One guarded update and one log row per message, in a transaction.
    Transaction,
    /// Reserve, then commit or release.
    Gate,
}

const DESIGNS: [(&str, Design); 3] = [
    ("credits ledger: sum, debit row, refund row", Design::Ledger),
    ("transaction: guarded update, log row", Design::Transaction),
    ("gate: reserve, commit or release", Design::Gate),
];

#[derive(Clone)]
struct World {
    pool: PgPool,
    gate: Gate,
    users: Arc<[UserId]>,
}

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "ledger",
        scale,
        "alternative designs",
        "The credits ledger holds twelve months, 10,100 rows per day from 1,000 users, ten of whom have 300 per day each, indexed by \
         user and time. The balance is a sum. The transactional design runs one guarded update and inserts one log row per \
         message. The gate runs in process. 32 callers send messages; one generation in twenty fails. Every design has 32 \
         connections to the same Postgres, each commit on disk.",
    );
    tokio::runtime::Runtime::new()?.block_on(measure(&mut section, scale))?;
    Ok(section)
}

async fn measure(section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let stores = Stores::start(scale).await?;
    let app = stores.app().await?;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(u32::try_from(SENDERS)?)
        .connect(&stores.postgres.url("postgres"))
        .await?;
    let world = World { pool, gate: app.gate.clone(), users: users(scale.of(200, USERS, USERS)) };
    let days = scale.of(2, 60, 365);
    world.prepare(days).await?;

    let time = scale.of(Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(2));
    let mut balance = vec![[Rounds::default(), Rounds::default()]; DESIGNS.len()];
    let mut sending = vec![[Rounds::default(), Rounds::default()]; DESIGNS.len()];
    for _ in 0..scale.of(1, 3, 5) {
        for ((_, design), (balance, sending)) in DESIGNS.iter().zip(balance.iter_mut().zip(&mut sending)) {
            balance[0].push(world.read(*design, HEAVY_USERS..world.users.len(), time).await);
            balance[1].push(world.read(*design, 0..HEAVY_USERS, time).await);
            let done = world.send(*design, time).await;
            sending[0].push(done.rate);
            sending[1].push(done.percentile(50.0).as_secs_f64());
            forget_journal(&mut stores.redis().await?).await?;
        }
    }
    let rows = DESIGNS.iter().zip(balance.iter().zip(&sending)).map(|((name, _), (balance, sending))| {
        let time = |rounds: &Rounds| text::time(Duration::from_secs_f64(rounds.median()));
        vec![
            (*name).to_owned(),
            time(&balance[0]),
            time(&balance[1]),
            text::whole(sending[0].median()),
            time(&sending[1]),
        ]
    });
    let title = format!("After {days} days, {} rows in the ledger", text::whole(count(days * ROWS_PER_DAY)));
    let columns = ["", "balance p50", "of a heavy user", "messages/s", "message p50"];
    section.table(&title, &columns, rows.collect());
    let [ledger, transaction, gate] = [0, 1, 2];
    section.ratio(
        "balance: ledger ÷ gate, p50",
        balance[ledger][0].over(&balance[gate][0]),
        Some(Target::AtLeast(50.0)),
    );
    section.ratio(
        "balance of a heavy user: ledger ÷ gate, p50",
        balance[ledger][1].over(&balance[gate][1]),
        Some(Target::AtLeast(500.0)),
    );
    section.ratio("messages per second: gate ÷ ledger", sending[gate][0].over(&sending[ledger][0]), None);
    section.ratio("messages per second: gate ÷ transaction", sending[gate][0].over(&sending[transaction][0]), None);
    Ok(())
}

impl World {
    async fn prepare(&self, days: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        let ids: Vec<&str> = self.users.iter().map(UserId::as_str).collect();
        sqlx::query("create table people as select user_uuid, rank from unnest($1::text[]) with ordinality as given (user_uuid, rank)")
            .bind(&ids)
            .execute(&self.pool)
            .await?;
        let light = ROWS_PER_DAY - HEAVY_USERS * HEAVY_ROWS_PER_DAY;
        let others = self.users.len() - HEAVY_USERS;
        let statements = [
            "alter table people add primary key (rank)".to_owned(),
            "create table credits (id bigint generated always as identity primary key, user_uuid text not null, amount integer not null,
                 kind text not null, session_id text, created_at timestamptz not null)"
                .to_owned(),
            // As in production: the rows of one day are adjacent, for all users.
            format!(
                "insert into credits (user_uuid, amount, kind, session_id, created_at)
                 select people.user_uuid, case when number % 30 = 0 then 1000 else -1 end, 'chat', 'chat-42', now() - make_interval(days => day)
                 from generate_series({days}, 1, -1) as day,
                      lateral (
                          select {HEAVY_USERS} + 1 + (day * 7919 + number * 104729) % {others} as rank, number from generate_series(1, {light}) as number
                          union all
                          select number % {HEAVY_USERS} + 1, number from generate_series(1, {HEAVY_USERS} * {HEAVY_ROWS_PER_DAY}) as number
                      ) as drawn
                 join people using (rank)"
            ),
            "create index on credits (user_uuid, created_at)".to_owned(),
            "create table plain_quotas (user_uuid text primary key, used bigint not null, quota bigint not null) with (fillfactor = 80)".to_owned(),
            "insert into plain_quotas select user_uuid, 0, 2000000000 from people".to_owned(),
            "create table plain_logs (id bigint generated always as identity primary key, user_uuid text not null, session_id text not null,
                 tokens integer not null, ap integer not null, created_at timestamptz not null)"
                .to_owned(),
            "create index on plain_logs (user_uuid, created_at)".to_owned(),
            "vacuum analyze".to_owned(),
        ];
        for statement in statements {
            run_sql(&self.pool, &statement).await?;
        }
        warm(&self.gate, &self.users).await?;
        tracing::debug!(elapsed = ?started.elapsed(), "the ledger is filled");
        Ok(())
    }

    /// Reads balances one at a time. Returns the median in seconds.
    async fn read(&self, design: Design, ranks: std::ops::Range<usize>, time: Duration) -> f64 {
        let done = work(1, time, |_| {
            let this = self.clone();
            let (mut pick, ranks) = (fastrand::Rng::with_seed(5), ranks.clone());
            Act(move || {
                let (this, user) = (this.clone(), this.users[pick.usize(ranks.clone())].clone());
                async move {
                    let read = match design {
                        Design::Ledger => this.ledger_balance(&user).await.is_ok(),
                        Design::Transaction => {
                            sqlx::query_scalar::<_, i64>("select quota - used from plain_quotas where user_uuid = $1")
                                .bind(user.as_str())
                                .fetch_one(&this.pool)
                                .await
                                .is_ok()
                        }
                        Design::Gate => this.gate.quota(&user).await.is_ok(),
                    };
                    assert!(read, "{design:?} cannot read the balance of {user}");
                }
            })
        })
        .await;
        done.percentile(50.0).as_secs_f64()
    }

    async fn send(&self, design: Design, time: Duration) -> Work {
        work(SENDERS, time, |number| {
            let this = self.clone();
            let mut pick = fastrand::Rng::with_seed(number as u64);
            Act(move || {
                let (this, user) = (this.clone(), this.users[pick.usize(..this.users.len())].clone());
                let fails = pick.usize(..FAILS_ONE_IN) == 0;
                async move {
                    match design {
                        Design::Ledger => this.send_by_ledger(&user, fails).await.expect("the ledger works"),
                        Design::Transaction => this.send_by_transaction(&user, fails).await.expect("Postgres works"),
                        Design::Gate => this.send_by_gate(user, fails).await,
                    }
                }
            })
        })
        .await
    }

    async fn ledger_balance(&self, user: &UserId) -> sqlx::Result<i64> {
        sqlx::query_scalar("select coalesce(sum(amount), 0)::bigint from credits where user_uuid = $1")
            .bind(user.as_str())
            .fetch_one(&self.pool)
            .await
    }

    async fn send_by_ledger(&self, user: &UserId, fails: bool) -> sqlx::Result<()> {
        self.ledger_balance(user).await?;
        for amount in [Some(-1), fails.then_some(1)].into_iter().flatten() {
            sqlx::query("insert into credits (user_uuid, amount, kind, session_id, created_at) values ($1, $2, 'chat', 'chat-42', now())")
                .bind(user.as_str())
                .bind(amount)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Writes the charge and the log row before the answer. A failure rolls both back.
    async fn send_by_transaction(&self, user: &UserId, fails: bool) -> sqlx::Result<()> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("update plain_quotas set used = used + 1 where user_uuid = $1 and used < quota")
            .bind(user.as_str())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("insert into plain_logs (user_uuid, session_id, tokens, ap, created_at) values ($1, 'chat-42', 412, 1, now())")
            .bind(user.as_str())
            .execute(&mut *transaction)
            .await?;
        if fails { transaction.rollback().await } else { transaction.commit().await }
    }

    async fn send_by_gate(&self, user: UserId, fails: bool) {
        let ttl = Ttl::from_seconds(60).expect("a time to live");
        let request = Reserve { user, session: session(), ap: Ap::ONE, ttl, idempotency_key: None };
        let Ok(Decision::Allowed(reserved)) = self.gate.reserve(request).await else { panic!("no hold") };
        let id = self.gate.reservation_id(&reserved.reservation);
        if fails {
            self.gate.release(&id).await.expect("the release succeeds");
        } else {
            let tokens = Tokens::new(412).expect("a number of tokens");
            self.gate
                .commit(&id, quota_gate::gate::Commit { tokens, ..quota_gate::gate::Commit::default() })
                .await
                .expect("the commit succeeds");
        }
    }
}
