//! What a command prints. If the reader has gone, as with `| head`, the command still does all of its work, and prints
//! no more. Any other failure to print is reported when the command ends.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
    sync::Mutex,
};

/// The first failure to print, other than a reader that has gone.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line of the result.
macro_rules! say {
    ($($argument:tt)*) => { $crate::cli::output::line(&mut std::io::stdout().lock(), format_args!($($argument)*)) };
}

/// Prints a line for people, beside the result.
macro_rules! note {
    ($($argument:tt)*) => { $crate::cli::output::line(&mut std::io::stderr().lock(), format_args!($($argument)*)) };
}

pub(super) use {note, say};

pub(super) fn line(to: &mut impl Write, line: fmt::Arguments<'_>) {
    keep(writeln!(to, "{line}"));
}

/// Prints bytes that another library has made.
pub(super) fn bytes(bytes: &[u8]) {
    keep(io::stdout().lock().write_all(bytes));
}

/// Completes the output.
///
/// # Errors
/// If a part of it could not be printed, for example because a disk is full.
pub(super) fn finish() -> io::Result<()> {
    keep(io::stdout().lock().flush());
    let failed = FAILED.lock().map_or(None, |mut failed| failed.take());
    failed.map_or(Ok(()), Err)
}

fn keep(outcome: io::Result<()>) {
    if let Err(error) = outcome
        && error.kind() != ErrorKind::BrokenPipe
        && let Ok(mut failed) = FAILED.lock()
    {
        failed.get_or_insert(error);
    }
}
