//! Metrics of the process under Prometheus' usual names, from `/proc`. Without `/proc`, there are none.

use std::fs;

use metrics::gauge;

use crate::descriptors;

/// Ticks per second in `/proc`: Linux reports 100, whatever the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// Updates the metrics.
pub(super) fn update() {
    let Some(process) = Process::read() else { return };
    gauge!("process_cpu_seconds_total").set(process.cpu_seconds);
    gauge!("process_start_time_seconds").set(process.start_seconds);
    gauge!("process_threads").set(process.threads);
    gauge!("process_resident_memory_bytes").set(process.resident_bytes);
    gauge!("process_virtual_memory_bytes").set(process.virtual_bytes);
    gauge!("process_open_fds").set(process.open_descriptors);
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    gauge!("process_max_fds").set(descriptors::limit() as f64);
}

struct Process {
    cpu_seconds: f64,
    start_seconds: f64,
    threads: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_descriptors: f64,
}

impl Process {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The program's name, in parentheses, may contain spaces. After it come the fields from the third one on.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let boot: f64 = value_of(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let kilobytes = |name: &str| Some(value_of(&status, name)? * 1024.0);
        let descriptors = fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            start_seconds: boot + field(22)? / TICKS_PER_SECOND,
            threads: field(20)?,
            resident_bytes: kilobytes("VmRSS:")?,
            virtual_bytes: kilobytes("VmSize:")?,
            open_descriptors: f64::from(u32::try_from(descriptors).ok()?),
        })
    }
}

/// Returns the number in the line that begins with `name`.
fn value_of(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}
