//! What commands print. All of it goes through [`print()`] and [`complain`], which never panic, as
//! `println!` does when the program's output has nowhere to go.

use std::io::{self, Write};

/// Nothing reads the output any more (`sightline openapi | head`): the end of a command, and not a
/// failure. Rust ignores SIGPIPE, which ends other programs then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing reads the output any more")]
pub struct ClosedPipe;

/// Prints text to stdout, with a newline at its end.
///
/// # Errors
/// [`ClosedPipe`], with which the command ends; another error says why the text can't be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ClosedPipe.into(),
        // Only its kind: the error itself repeats it with a number.
        kind => anyhow::anyhow!("cannot write to stdout: {kind}"),
    })
}

/// Prints a line to stderr, as far as that is possible.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
