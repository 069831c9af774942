//! Child processes that end with the test process, even if that is killed.
//!
//! A shell starts the program. When the shell's standard input ends, because the [`Process`] was dropped or
//! the test process died, the shell kills the program with SIGKILL. This takes neither a signal handler nor
//! unsafe code. The shell exits with the program's exit code, or with 128 + n if signal n ended the program.
//! [`Directory`] removes the files of a program in the same way.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Starts the program "$@" and prints its process id on the first line.
const GUARD: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null &
p=$!
(cat <&3 >/dev/null; kill -9 $p) >/dev/null 2>&1 &
g=$!
exec 3<&-
echo "guarded pid $p"
wait $p
code=$?
kill $g
exit $code
"#;

/// Removes a directory when standard input ends. Waits a second for [`GUARD`] to kill the program that
/// writes there.
const JANITOR: &str = r#"cat >/dev/null; sleep 1; rm -rf "$1""#;

/// A new directory, removed when dropped or soon after the test process died.
pub struct Directory {
    pub path: PathBuf,
    janitor: Child,
}

impl Directory {
    pub fn new(prefix: &str) -> Directory {
        let path = tempfile::Builder::new().prefix(prefix).tempdir();
        let path = path.expect("a temporary directory").keep();
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        Directory { path, janitor }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        let _ = self.janitor.kill();
        let _ = self.janitor.wait();
    }
}

/// The lines that a program has written to either stream so far.
#[derive(Clone, Default)]
pub struct Output(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Output {
    fn push(&self, line: String) {
        self.0.0.lock().unwrap().push(line);
        self.0.1.notify_all();
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// The lines so far, as one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    fn follow(&self, stream: impl Read + Send + 'static) {
        let output = self.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                output.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
    }
}

/// A running program.
pub struct Process {
    shell: Child,
    pub pid: u32,
    pub output: Output,
}

impl Process {
    /// Starts `command`: its program, arguments, environment and directory.
    pub fn start(command: &Command) -> Process {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(GUARD).arg("guard");
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            shell.current_dir(directory);
        }
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut stdout = BufReader::new(shell.stdout.take().expect("piped"));
        let output = Output::default();
        output.follow(shell.stderr.take().expect("piped"));
        // The program shares the stream, so its lines may precede the shell's.
        let pid = loop {
            let mut line = String::new();
            let n = stdout.read_line(&mut line).expect("readable");
            assert!(n > 0, "the shell prints the program's process id");
            match line.trim_end().strip_prefix("guarded pid ") {
                Some(pid) => break pid.parse().expect("a number"),
                None => output.push(line.trim_end().to_owned()),
            }
        };
        output.follow(stdout);
        Process { shell, pid, output }
    }

    /// Sends a signal (`KILL`, `TERM`, `STOP`, …) to the program, unless it has ended.
    pub fn signal(&mut self, name: &str) {
        if self.exited().is_none() {
            let _ = Command::new("kill")
                .arg(format!("-{name}"))
                .arg(self.pid.to_string())
                .stderr(Stdio::null())
                .status();
        }
    }

    /// The exit code, once the program has ended.
    pub fn exited(&mut self) -> Option<i32> {
        let status = self.shell.try_wait().expect("waitable")?;
        Some(status.code().unwrap_or(-1))
    }

    /// Waits for the program to end and returns its exit code. Panics at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> i32 {
        let end = Instant::now() + deadline;
        loop {
            if let Some(code) = self.exited() {
                return code;
            }
            assert!(
                Instant::now() < end,
                "still running after {deadline:?}; its output:\n{}",
                self.output.text()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Kills the program with SIGKILL and waits until it has ended.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait(Duration::from_secs(20));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("KILL");
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}
