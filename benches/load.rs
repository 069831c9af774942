//! The load on servers: `wrk` for REST, `h2load` for gRPC. Both take less of the processors, which they share with what they
//! measure, than a client in Rust would.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use sightline_testing::app::{Running, SOON};
use sightline_testing::process::Process;
use sightline_testing::wait_until;
use tempfile::NamedTempFile;
use tokio::time::sleep;

use crate::report::{Report, percentiles};

/// Asks for the paths of a file in turn: at once, or at a rate. For a rate each connection takes the next free slot of the
/// clock, so a slow answer delays no other read while there are free connections. `delay` is in whole milliseconds.
const SCRIPT: &str = r#"
local requests, count, last = {}, 0, 0

function init(args)
  for path in io.lines(args[1]) do
    count = count + 1
    requests[count] = wrk.format(nil, path)
  end
  local rate = tonumber(args[2])
  if rate == 0 then return end
  local ffi = require("ffi")
  ffi.cdef("typedef struct { long s, us; } timeval; int gettimeofday(timeval *, void *);")
  local time, slot = ffi.new("timeval"), 0
  function delay()
    ffi.C.gettimeofday(time, nil)
    local now = tonumber(time.s) * 1e3 + tonumber(time.us) / 1e3
    if slot == 0 then slot = now end
    slot = slot + 1e3 / rate
    return math.max(slot - now, 0)
  end
end

function request()
  last = last % count + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  print(string.format('{"answers": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f}', summary.requests,
    summary.duration / 1e6, failed, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"#;

/// Reads a second while something else is measured, too.
pub const RATE: usize = 1_000;
/// Connections of [`Pace::Rate`]: at most so many reads are under way at once.
const CONNECTIONS: usize = 64;

/// Checks that the tools are installed.
pub fn check_tools() {
    for (tool, package) in [("wrk", "wrk"), ("h2load", "nghttp2-client")] {
        let found = Command::new(tool).arg("--version").output().is_ok();
        assert!(
            found,
            "{tool} is missing; reads, questions and rebuild need it: install the package {package} (Debian, Ubuntu)"
        );
    }
}

/// How long paths are read before they are measured.
const WARMING: Duration = Duration::from_secs(2);

/// When `wrk` reads.
#[derive(Clone, Copy)]
pub enum Pace {
    /// On so many connections, on each as soon as the last answer is there.
    Connections(usize),
    /// So many times a second, whatever becomes of them.
    Rate(usize),
}

/// What became of a load.
#[derive(Deserialize)]
pub struct Load {
    pub answers: f64,
    pub seconds: f64,
    /// Answers that are errors, and requests without an answer.
    pub failed: f64,
    /// Of the latencies, in seconds.
    p50: f64,
    p99: f64,
}

impl Load {
    pub fn add(&self, report: &mut Report, row: &str) {
        report.add(row, "answers/s", self.answers / self.seconds);
        report.add(row, "p50 ms", self.p50 * 1e3);
        report.add(row, "p99 ms", self.p99 * 1e3);
        if self.failed > 0.0 {
            report.add(row, "% failed", self.failed / self.answers * 100.0);
        }
    }
}

/// Reads paths from a server by REST, in turn, until a future ends. Returns what that returned, too.
pub async fn wrk<T>(
    server: &Running,
    paths: &[String],
    pace: Pace,
    until: impl Future<Output = T>,
) -> (Load, T) {
    let (script, paths) = (file(SCRIPT.as_bytes()), file(paths.join("\n").as_bytes()));
    let (connections, rate) = match pace {
        Pace::Connections(connections) => (connections, 0),
        Pace::Rate(rate) => (CONNECTIONS, rate),
    };
    let mut command = Command::new("wrk");
    command
        .args(["--threads=1", "--duration=1h", "--timeout=10s"])
        .arg(format!("--connections={connections}"))
        .arg("--script")
        .arg(script.path())
        .arg(format!("http://{}", server.rest.address))
        .arg("--")
        .arg(paths.path())
        .arg(rate.to_string());
    let mut process = Process::start(&command);
    let outcome = until.await;
    let load = wait_until(SOON, "wrk reports", async || {
        // Until it has begun to read, it ignores the signal.
        process.signal("INT");
        let lines = process.output.lines();
        let report = lines
            .iter()
            .find_map(|line| serde_json::from_str(line).ok());
        report.ok_or(lines.join("\n"))
    });
    (load.await, outcome)
}

/// Reads paths before they are measured: each of the server's connections to Postgres plans a statement once, which
/// takes as long as many reads.
pub async fn warm(server: &Running, paths: &[String]) {
    wrk(server, paths, Pace::Connections(16), sleep(WARMING)).await;
}

/// Makes one gRPC call again and again, on 16 streams of 4 connections. h2load does not look at the gRPC status.
pub async fn h2load(server: &Running, path: &str, message: &[u8], time: Duration) -> Load {
    let frame = file(&[&[0], &(message.len() as u32).to_be_bytes()[..], message].concat());
    let log = file(&[]);
    let mut command = Command::new("h2load");
    command
        .args(["--threads=1", "--clients=4", "--max-concurrent-streams=4"])
        .args([
            "--header=content-type: application/grpc",
            "--header=te: trailers",
        ])
        .arg(format!("--duration={}", time.as_secs()))
        .arg("--data")
        .arg(frame.path())
        .arg("--log-file")
        .arg(log.path())
        .arg(format!("http://{}{path}", server.raw_grpc.address));
    let mut process = Process::start(&command);
    wait_until(SOON, "h2load ends", async || {
        process.exited().ok_or(process.output.text())
    })
    .await;
    let log = std::fs::read_to_string(log.path()).expect("h2load's log");
    // When a request began, its HTTP status, and how long it took, in microseconds.
    let requests = log.lines().map(|line| {
        let mut columns = line.split('\t').skip(1);
        let (status, time) = (columns.next(), columns.next());
        (status == Some("200"), time.expect("three columns"))
    });
    let (answers, failed): (Vec<_>, Vec<_>) = requests.partition(|(is_answer, _)| *is_answer);
    let latencies = answers
        .iter()
        .map(|(_, time)| time.parse::<f64>().expect("a number") / 1e6);
    let [p50, p99] = percentiles(latencies.collect());
    Load {
        answers: answers.len() as f64,
        seconds: time.as_secs_f64(),
        failed: failed.len() as f64,
        p50,
        p99,
    }
}

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(content).expect("writable");
    file
}
