//! The command line: `sightline <command>`. An error ends in one line on stderr and a documented exit code.

use std::process::ExitCode;

use sightline::config::ConfigError;
use sightline::output::{self, ClosedPipe};
use sightline::{cli, task};

/// glibc's allocator keeps several times the memory that a backlog needs, because it makes arenas for many threads.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc reads this when it starts: it makes an arena for each processor, and returns freed memory to the system after a
/// second.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
// SAFETY: jemalloc declares `const char *malloc_conf`, and reads it as a string that ends in a zero. No
// other symbol has the name.
#[unsafe(export_name = "malloc_conf")]
static CONFIGURATION: Option<&std::ffi::c_char> = {
    const TEXT: &std::ffi::CStr =
        c"percpu_arena:percpu,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";
    // SAFETY: a string with an end is a pointer to its first character.
    Some(unsafe { &*TEXT.as_ptr() })
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = cli::command().get_matches();
    match cli::run(&arguments).await {
        Ok(code) => code,
        Err(error) if error.is::<ClosedPipe>() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("sightline: {error:#}"));
            ExitCode::from(if error.is::<ConfigError>() {
                task::EXIT_CONFIG
            } else {
                task::EXIT_FAILURE
            })
        }
    }
}
