//! The runtime: its jobs outlive a panic, and a job that keeps failing is reported.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusBuilder;
use quota_gate::runtime::{BeforeStep, Runtime, RuntimeOptions};

use crate::support::{World, consume, eventually};

const JOBS: [&str; 11] = [
    "flusher",
    "gauges",
    "grant_sync",
    "inbox_worker",
    "level_sync",
    "levels",
    "partition_maker",
    "presence",
    "quota_watcher",
    "resetter",
    "rollout_sync",
];

fn options(world: &World, before_step: impl Fn(&'static str) + Send + Sync + 'static) -> RuntimeOptions {
    let secret = b"a secret of at least thirty-two bytes";
    let mut options = RuntimeOptions::new(&world.database, &world.redis.url(), secret).unwrap();
    options.jobs.gauges = true;
    options.jobs.before_step = BeforeStep(Arc::new(before_step));
    options
}

#[tokio::test]
async fn each_job_that_panics_is_started_again_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    let world = World::new().await;
    let steps = Arc::new(Mutex::new(BTreeMap::<&str, u32>::new()));
    let counted = Arc::clone(&steps);
    let panic_once = move |job| {
        let step = {
            let mut steps = counted.lock().unwrap();
            *steps.entry(job).and_modify(|steps| *steps += 1).or_insert(1)
        };
        assert!(step > 1, "the first step of {job} fails on purpose");
    };
    let runtime = Runtime::start(options(&world, panic_once)).await.unwrap();
    eventually("each job has made a step after its panic", async || {
        JOBS.iter().all(|job| steps.lock().unwrap().get(job).is_some_and(|steps| *steps >= 2))
    })
    .await;
    assert_eq!(steps.lock().unwrap().keys().copied().collect::<Vec<_>>(), JOBS);
    let metrics = metrics.render();
    for job in JOBS {
        assert!(metrics.contains(&format!("quota_gate_job_restarts_total{{job=\"{job}\"}} 1")), "{job}: {metrics}");
    }
    runtime.gate().consume(consume("alice", 5)).await.unwrap();
    runtime.shutdown(Duration::from_secs(10)).await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 5, "shutdown flushes");
}

#[tokio::test]
async fn a_job_that_keeps_failing_is_reported() {
    let world = World::new().await;
    let always = |job| assert_ne!(job, "level_sync", "on purpose");
    let runtime = Runtime::start(options(&world, always)).await.unwrap();
    let failed = runtime.failed().await;
    assert_eq!(failed.name, "level_sync");
    assert!(failed.to_string().contains("on purpose"), "{failed}");
    runtime.shutdown(Duration::from_secs(10)).await;
}
