//! The script alone, as fast as Redis accepts calls: the cost of one decision, by batch size.

use std::time::Duration;

use anyhow::Context as _;
use quota_gate::{
    domain::{
        ap::Ap,
        calendar::{AnchorDay, Calendar},
        clock::Clock,
        grant::Grants,
        level::{Level, LevelCode, LevelName, Levels},
        partition::{Partition, Partitions},
        user_id::UserId,
        window::LevelLimits,
    },
    store::redis::{
        Context, Fence, Memory, Operation, Redis, RedisOptions, Request, Script, Seed, ServerId, UserLevel,
    },
};
use quota_gate_dev::{RedisServer, ScratchDir};
use redis::Connection;

use crate::support::{
    Scale,
    pipe::{Pipe, consume, drive, server_id},
    report::{Axis, Line, Plot, Section, Target},
    rounds::Rounds,
    stores::{QUOTA, redis_server, user},
    text,
};

/// Operations in flight on one connection, for any size of a call.
const OPERATIONS_IN_FLIGHT: usize = 64;
/// Two connections, so Redis never waits for the client to read.
const CONNECTIONS: usize = 2;
/// Number of different blocks of calls, each with 64 operations.
const BLOCKS: usize = 256;

const INCRBY: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";

/// The operation that Redis repeats.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Ping,
    /// One `EVALSHA` per operation.
    IncrBy,
    /// The same decision, one user per call, the state in a hash.
    Hashes,
    /// The gate's script, with this many operations per call.
    Gate(usize),
}

/// Measurements of one side in one round.
struct Measured {
    operations_per_second: f64,
    /// Microseconds of script time per operation, from `INFO commandstats`.
    script_us: f64,
    /// Microseconds of processor time of the whole server per operation.
    server_us: f64,
}

struct Bench {
    server: RedisServer,
    _scratch: ScratchDir,
    admin: Connection,
    server_id: ServerId,
    script: Script,
    incrby_sha: String,
    hashes_sha: String,
    partition: Partition,
    calendar: Calendar,
    levels: Levels,
    users: Vec<UserId>,
}

pub(crate) fn run(scale: Scale) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "script",
        scale,
        "the decision inside Redis",
        "Calls are prepared in advance and sent over two connections with 64 operations in flight on each, so Redis is never idle: \
         this is the upper limit. The baselines are one scripted INCRBY per operation (pipelined 64), PING, and the same decision \
         as one call per request with the state in a hash. Redis writes its append-only file. Script time is from INFO \
         commandstats, server time from INFO cpu.",
    );
    let mut bench = Bench::start()?;
    bench.add_users(scale.of(200, 20_000, 100_000))?;
    throughput(&mut bench, &mut section, scale)?;
    by_users(&mut bench, &mut section, scale)?;
    Ok(section)
}

fn throughput(bench: &mut Bench, section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let sides = [
        ("PING", Side::Ping),
        ("scripted INCRBY, 1 per call", Side::IncrBy),
        ("decision on a hash, 1 per call", Side::Hashes),
        ("gate, 1 per call", Side::Gate(1)),
        ("gate, 8 per call", Side::Gate(8)),
        ("gate, 32 per call", Side::Gate(32)),
        ("gate, 64 per call", Side::Gate(64)),
    ];
    let mut rounds = vec![<[Rounds; 3]>::default(); sides.len()];
    for _ in 0..scale.of(1, 3, 9) {
        for ((_, side), rounds) in sides.iter().zip(&mut rounds) {
            let measured = bench.measure(
                *side,
                scale.of(Duration::from_millis(20), Duration::from_millis(400), Duration::from_secs(1)),
            )?;
            rounds[0].push(measured.operations_per_second);
            rounds[1].push(measured.script_us);
            rounds[2].push(measured.server_us);
        }
    }
    let of = |side: Side| &rounds[sides.iter().position(|(_, known)| *known == side).expect("a known side")][0];
    let (incrby, hashes) = (of(Side::IncrBy), of(Side::Hashes));
    let rows = sides.iter().zip(&rounds).map(|((name, _), [rate, script, server])| {
        vec![
            (*name).to_owned(),
            text::whole(rate.median()),
            text::ratio(rate.over(incrby)),
            format!("{:.2}", script.median()),
            format!("{:.2}", server.median()),
        ]
    });
    let columns = ["", "operations/s", "÷ INCRBY", "script µs", "server µs"];
    section.table("Throughput and Redis' processor time per operation", &columns, rows.collect());
    let by_32 = of(Side::Gate(32));
    let aim = Some(Target::AtLeast(0.75));
    section.ratio("script, 32 per call ÷ scripted INCRBY, pipelined 64", by_32.over(incrby), aim);
    section.ratio("script, 32 per call ÷ the same decision on a hash, 1 per call", by_32.over(hashes), None);
    Ok(())
}

/// Measures the memory per user, and the throughput by number of users.
fn by_users(bench: &mut Bench, section: &mut Section, scale: Scale) -> anyhow::Result<()> {
    let counts: &[usize] = scale.of(&[100, 1_000], &[10_000, 100_000], &[1_000, 10_000, 100_000, 1_000_000]);
    let (mut rows, mut rates) = (vec![], vec![]);
    let mut per_user = 0.0;
    for &count in counts {
        redis::cmd("FLUSHALL").exec(&mut bench.admin)?;
        bench.users.clear();
        bench.open()?;
        bench.forget_journal()?;
        let before = bench.used_memory()?;
        bench.add_users(count)?;
        bench.forget_journal()?;
        #[expect(clippy::cast_precision_loss, reason = "numbers of users")]
        let count = count as f64;
        per_user = (bench.used_memory()? - before) / count;
        let mut rate = Rounds::default();
        for _ in 0..scale.of(1, 3, 5) {
            rate.push(
                bench
                    .measure(
                        Side::Gate(32),
                        scale.of(Duration::from_millis(20), Duration::from_millis(400), Duration::from_secs(1)),
                    )?
                    .operations_per_second,
            );
        }
        rates.push((count, rate.median()));
        rows.push(vec![text::whole(count), format!("{per_user:.0}"), text::whole(rate.median())]);
    }
    section.table(
        "Memory and throughput by number of users (UUIDs)",
        &["users", "bytes/user", "operations/s, 32 per call"],
        rows,
    );
    section.ratio("Redis memory per user, in bytes", per_user, Some(Target::AtMost(150.0)));
    section.plot(Plot {
        title: "Throughput by number of users".into(),
        x: Axis { label: "users in Redis".into(), logarithmic: true },
        y: Axis { label: "operations per second, 32 per call".into(), logarithmic: false },
        lines: vec![Line { name: "gate".into(), points: rates }],
    });
    Ok(())
}

impl Bench {
    fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let scratch = ScratchDir::new()?;
        let server = runtime.block_on(redis_server(&scratch))?;
        let mut admin = redis::Client::open(server.operator_url())?.get_connection()?;
        let mut load = |script: &str| redis::cmd("SCRIPT").arg("LOAD").arg(script).query::<String>(&mut admin);
        let (incrby_sha, hashes_sha) = (load(INCRBY)?, load(include_str!("hashes.lua"))?);
        let server_id = server_id(&server)?;
        let (code, name) = (LevelCode::new(1).expect("a code"), LevelName::parse("bench")?);
        let level = Level { code, name, quota: Ap::new(QUOTA), limits: LevelLimits::default(), retired: false };
        let mut bench = Self {
            server,
            _scratch: scratch,
            admin,
            server_id,
            script: Script::default(),
            incrby_sha,
            hashes_sha,
            partition: Partitions::new(1)?.all().next().expect("one partition"),
            calendar: Calendar::new(chrono_tz::Tz::UTC),
            levels: Levels::new(1, vec![level])?,
            users: vec![],
        };
        bench.admin.send_packed_command(&bench.script.load_command())?;
        bench.admin.recv_response()?;
        bench.open()?;
        // The server is a child of this process, not of the runtime.
        runtime.shutdown_background();
        Ok(bench)
    }

    /// Opens the partition as the gate does.
    fn open(&mut self) -> anyhow::Result<()> {
        let options = RedisOptions {
            url: self.server.url(),
            connections_max: 1,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
        };
        let opening = async {
            let redis = Redis::new(&options)?;
            let mut draining = redis.drain(self.partition, &[], None).await?;
            while draining.next().await?.is_some() {}
            let drained = draining.ended().context("the streams were not read to the end")?;
            let opened = redis.open(self.partition, 1, &drained, &self.levels).await?.is_some();
            anyhow::ensure!(opened, "the partition does not open");
            Ok(())
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(opening)
    }

    /// Adds users to Redis, as the gate's loader does.
    fn add_users(&mut self, count: usize) -> anyhow::Result<()> {
        let now = Clock::machine().now();
        let (day, period) = (self.calendar.day_at(now), self.calendar.month_at(now));
        let level = UserLevel {
            period,
            anchor_day: AnchorDay::FIRST,
            level: LevelCode::new(1).expect("a code"),
            quota: Ap::new(QUOTA),
            own_quota: false,
            blocked: false,
            pending: None,
            level_version: 0,
        };
        let (used, grants) = (Ap::ZERO, Grants::default());
        let seed = Seed { level, used, total_used: 0, day, used_today: used, windows: vec![], grants };
        let first = self.users.len();
        self.users.extend((first..first + count).map(user));
        for chunk in self.users[first..].chunks(100) {
            let peek = |user: &UserId| Request {
                user: user.clone(),
                meter: quota_gate::domain::meter::MeterCode::CHAT,
                operation: Operation::Peek,
                seed: Some(seed.clone()),
                generation: None,
            };
            let requests: Vec<Request> = chunk.iter().map(peek).collect();
            self.admin.send_packed_command(&self.script.command(&self.context(), &requests))?;
            self.admin.recv_response()?;
        }
        Ok(())
    }

    fn context(&self) -> Context<'_> {
        Context {
            partition: self.partition,
            generation: 1,
            server: &self.server_id,
            now: Clock::machine().now(),
            calendar: self.calendar,
            stream_bytes_max: u64::from(u32::MAX),
            memory: Memory::Limited,
        }
    }

    fn forget_journal(&mut self) -> anyhow::Result<()> {
        Ok(redis::cmd("XTRIM")
            .arg(format!("qg:{{{}}}:ev:1", self.partition))
            .arg("MAXLEN")
            .arg(1)
            .exec(&mut self.admin)?)
    }

    /// Measures one side for this long.
    fn measure(&mut self, side: Side, time: Duration) -> anyhow::Result<Measured> {
        self.forget_journal()?;
        if side == Side::Hashes {
            self.add_hashes()?;
        }
        let mut pick = fastrand::Rng::with_seed(7);
        let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| self.block(side, &mut pick)).collect();
        let replies = match side {
            Side::Gate(batch) => OPERATIONS_IN_FLIGHT / batch,
            _ => OPERATIONS_IN_FLIGHT,
        };
        let mut pipes = (0..CONNECTIONS).map(|_| Pipe::open(&self.server)).collect::<Result<Vec<_>, _>>()?;
        let (script_before, server_before) = self.processor_us()?;
        let (turns, elapsed) = drive(&mut pipes, &blocks, replies, time)?;
        let (script_after, server_after) = self.processor_us()?;
        #[expect(clippy::cast_precision_loss, reason = "a number of operations")]
        let done = (turns * OPERATIONS_IN_FLIGHT) as f64;
        Ok(Measured {
            operations_per_second: done / elapsed.as_secs_f64(),
            script_us: (script_after - script_before) / done,
            server_us: (server_after - server_before) / done,
        })
    }

    /// Encodes 64 operations.
    fn block(&self, side: Side, pick: &mut fastrand::Rng) -> Vec<u8> {
        let mut some = || &self.users[pick.usize(..self.users.len())];
        let one = |words: &[&[u8]]| {
            let add = |mut command: redis::Cmd, word: &&[u8]| command.arg(*word).to_owned();
            words.iter().fold(redis::Cmd::new(), add).get_packed_command()
        };
        match side {
            Side::Ping => one(&[b"PING"]).repeat(OPERATIONS_IN_FLIGHT),
            Side::IncrBy => (0..OPERATIONS_IN_FLIGHT)
                .flat_map(|_| {
                    one(&[b"EVALSHA", self.incrby_sha.as_bytes(), b"1", format!("incrby:{}", some()).as_bytes(), b"1"])
                })
                .collect(),
            Side::Hashes => (0..OPERATIONS_IN_FLIGHT)
                .flat_map(|_| {
                    let fence = Fence::new(1, &self.server_id).to_string();
                    let user = some();
                    let event = [[7; 40].as_slice(), user.as_str().as_bytes()].concat();
                    let hash = format!("hash:{user}");
                    one(&[
                        b"EVALSHA",
                        self.hashes_sha.as_bytes(),
                        b"3",
                        b"qg:{00}:gen",
                        hash.as_bytes(),
                        b"qg:{00}:ev:1",
                        fence.as_bytes(),
                        b"202601",
                        b"20000",
                        b"1",
                        &event,
                    ])
                })
                .collect(),
            Side::Gate(batch) => (0..OPERATIONS_IN_FLIGHT / batch)
                .flat_map(|_| {
                    let requests: Vec<Request> = (0..batch).map(|_| consume(some())).collect();
                    self.script.command(&self.context(), &requests)
                })
                .collect(),
        }
    }

    fn add_hashes(&mut self) -> anyhow::Result<()> {
        for chunk in self.users.chunks(500) {
            let mut pipe = redis::pipe();
            for user in chunk {
                pipe.cmd("HSET").arg(format!("hash:{user}")).arg("generation").arg(1).arg("period").arg(202_601);
                pipe.arg("level").arg(1).arg("quota").arg(QUOTA).arg("pending").arg(0).arg("used").arg(0);
                pipe.arg("total_used")
                    .arg(0)
                    .arg("day")
                    .arg(20_000)
                    .arg("used_today")
                    .arg(0)
                    .arg("version")
                    .arg(1)
                    .ignore();
            }
            pipe.exec(&mut self.admin)?;
        }
        Ok(())
    }

    fn used_memory(&mut self) -> anyhow::Result<f64> {
        Ok(number(&info(&mut self.admin, "memory")?, "used_memory:"))
    }

    /// Returns the processor time of scripts and of the whole server, in microseconds.
    fn processor_us(&mut self) -> anyhow::Result<(f64, f64)> {
        let stats = info(&mut self.admin, "commandstats")?;
        let usec = |command: &str| {
            let name = format!("cmdstat_{command}:");
            let line = stats.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
            line.split(',').map(|field| number(field, "usec=")).sum::<f64>()
        };
        let cpu = info(&mut self.admin, "cpu")?;
        let seconds = number(&cpu, "used_cpu_user:") + number(&cpu, "used_cpu_sys:");
        Ok((usec("fcall") + usec("evalsha") + usec("ping"), seconds * 1e6))
    }
}

fn info(connection: &mut Connection, section: &str) -> anyhow::Result<String> {
    Ok(redis::cmd("INFO").arg(section).query(connection)?)
}

fn number(text: &str, name: &str) -> f64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
}
