//! Entry point of the program. Everything else is in the library.

use std::process::ExitCode;

/// The batcher makes small allocations at a high rate from several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quota_gate_server::cli::run()
}
