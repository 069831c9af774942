//! The examples of README and docs, run as they are printed against `sightline dev`, and compared with the answers that
//! are printed under them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use sightline_testing::app::{App, Running, SOON, sightline};
use sightline_testing::client::{Rest, escape};
use sightline_testing::wait_until;

/// The first words of the commands that are examples. The others build, install or start something.
const PROGRAMS: &[&str] = &["curl", "grpcurl", "echo", "sightline"];

/// How long events take to be projected, those of an example included.
const PROJECTED: Duration = Duration::from_secs(10);

/// A command of a page, and the output that is printed under it, where there is one.
#[derive(Debug)]
struct Example {
    command: String,
    output: Option<String>,
}

/// The examples of a page, in order: the commands of its `sh` blocks, and those of its `console` blocks with their
/// outputs.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut language = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(word) = line.strip_prefix("```") {
            language = language.is_none().then_some(word);
            continue;
        }
        let command = match language {
            Some("console") => line.strip_prefix("$ "),
            Some("sh") => Some(line).filter(|line| !line.trim().is_empty()),
            _ => continue,
        };
        let Some(first) = command else {
            if let Some(example) = examples.last_mut() {
                let output = example.output.get_or_insert_default();
                output.push_str(line);
                output.push('\n');
            }
            continue;
        };
        let mut command = first.to_owned();
        while command.ends_with(['\\', '|']) {
            command.push('\n');
            command.push_str(lines.next().expect("the rest of a command"));
        }
        let output = (language == Some("console")).then(String::new);
        examples.push(Example { command, output });
    }
    examples.retain(|example| {
        let program = example.command.split_whitespace().next();
        // A command with a placeholder or without a server can't be run as it is printed.
        PROGRAMS.contains(&program.unwrap_or_default())
            && !example.command.contains(" <")
            && !example.command.starts_with("sightline serve")
    });
    examples
}

/// `sightline dev` without random events, and the address of its broker.
async fn dev() -> (Running, String) {
    let mut command = sightline(&["dev", "--rate", "0", "--log-format", "json"]);
    for port in ["GRPC", "HTTP", "ADMIN"] {
        command.env(format!("SIGHTLINE_{port}_ADDR"), "127.0.0.1:0");
    }
    let running = App::start(&command).ready().await;
    let brokers = wait_until(SOON, "the greeting", async || {
        let output = running.app.output();
        let line = output
            .lines()
            .find_map(|line| line.trim().strip_prefix("Kafka "));
        line.and_then(|line| Some(line.split_whitespace().next()?.to_owned()))
            .ok_or(output)
    })
    .await;
    (running, brokers)
}

/// Whether an output is the printed one. With headers, those that are printed have to be there, in any order.
fn is_as_printed(printed: &str, output: &str) -> bool {
    if !printed.starts_with("HTTP/") {
        return matches(printed, output);
    }
    let (headers, body) = printed.split_once("\n…\n").unwrap_or((printed, ""));
    let (given, sent) = output.split_once("\r\n\r\n").unwrap_or((output, ""));
    let is_given = |header: &str| given.lines().any(|given| matches(header, given));
    headers.lines().all(is_given) && matches(body, sent)
}

/// Whether a text is the printed one. `…` stands for anything, and white space counts for nothing.
fn matches(printed: &str, output: &str) -> bool {
    let squeeze = |text: &str| {
        text.chars()
            .filter(|c| !c.is_whitespace())
            .collect::<String>()
    };
    let (printed, output) = (squeeze(printed), squeeze(output));
    let mut parts = printed.split('…');
    let Some(mut rest) = output.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut ends_open = false;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        ends_open = part.is_empty();
    }
    rest.is_empty() || ends_open || printed.ends_with('…')
}

struct Runner {
    running: Running,
    brokers: String,
    pool: DescriptorPool,
}

impl Runner {
    /// Runs an example and returns its output.
    async fn run(&self, command: &str) -> Result<String, String> {
        if let Some(call) = command.strip_prefix("grpcurl ") {
            return self.call(call).await;
        }
        if let Some(record) = command.strip_prefix("echo '") {
            return self.produce(record).await;
        }
        let (http, grpc) = (&self.running.rest.address, &self.running.raw_grpc.address);
        let command = command
            .replace("127.0.0.1:8080", http)
            .replace("127.0.0.1:50051", grpc);
        let mut program = sightline(&[]);
        program.env("SIGHTLINE_HTTP_ADDR", http);
        let path = program.get_program().to_str().expect("a path").to_owned();
        let command = match command.strip_prefix("sightline ") {
            Some(arguments) => format!("'{path}' {arguments}"),
            None => command,
        };
        // A command that watches something ends only when it is told to.
        let mut shell = Command::new("timeout");
        shell.args(["5", "sh", "-c", &command]).env_clear();
        for (name, value) in program.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        shell.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let output = tokio::task::spawn_blocking(move || shell.output().expect("a shell"));
        let output = output.await.expect("no panic");
        let errors = String::from_utf8_lossy(&output.stderr);
        // A retry that leaves dead letters behind prints them, and exits with 1.
        let left_some = errors.is_empty() && !output.stdout.is_empty();
        if output.status.success() || left_some {
            Ok(String::from_utf8(output.stdout).expect("UTF-8"))
        } else {
            Err(format!("{}: {errors}", output.status))
        }
    }

    /// What `grpcurl -plaintext -d <json> <address> <service>/<method>` does: reads the request by the descriptors of the
    /// API, and calls.
    async fn call(&self, arguments: &str) -> Result<String, String> {
        let (_, rest) = arguments.split_once("-d '").expect("a request");
        let (json, rest) = rest.split_once('\'').expect("the request's end");
        let path = rest.split_whitespace().next_back().expect("a method");
        let (service, method) = path.split_once('/').expect("a method");
        let service = self
            .pool
            .get_service_by_name(service)
            .ok_or("no such service")?;
        let method = service
            .methods()
            .find(|known| known.name() == method)
            .ok_or("no such method")?;
        let mut json = serde_json::Deserializer::from_str(json);
        let request = DynamicMessage::deserialize(method.input(), &mut json)
            .map_err(|error| error.to_string())?;
        let (status, answer) = self
            .running
            .raw_grpc
            .raw_grpc(&format!("/{path}"), &[], &request.encode_to_vec())
            .await;
        match status {
            0 => Ok(String::new()),
            _ => Err(format!("status {status}: {:?}", answer.headers)),
        }
    }

    /// What `echo '<key>:<value>' | kcat -P -b <broker> -t <topic> -K :` does.
    async fn produce(&self, line: &str) -> Result<String, String> {
        let (record, rest) = line.split_once('\'').expect("the record's end");
        assert!(
            rest.contains("kcat -P -b $broker -t user.events -K :"),
            "{rest}"
        );
        let (key, value) = record.split_once(':').expect("a key");
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .create()
            .map_err(|error| error.to_string())?;
        producer
            .send(BaseRecord::to("user.events").key(key).payload(value))
            .map_err(|(error, _)| error.to_string())?;
        producer.flush(SOON).map_err(|error| error.to_string())?;
        Ok(String::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_gives_the_printed_answer() {
    let (running, brokers) = dev().await;
    let pool = DescriptorPool::decode(sightline::proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let runner = Runner {
        running,
        brokers,
        pool,
    };
    // The greeting comes when the views are complete.
    for user in [
        "/v1/order/customers/nobody",
        "/v1/fulfillment/users/nobody/addresses",
        "/v1/personalization/users/nobody",
    ] {
        assert_eq!(runner.running.rest.get(user).await.status, 404, "{user}");
    }
    assert_tried_reads_answer(&runner.running.rest).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let domains = sightline::domains::names().into_iter();
    let pages = ["README.md", "docs/clients.md", "docs/operations.md"].map(str::to_owned);
    for page in pages
        .into_iter()
        .chain(domains.map(|domain| format!("docs/{domain}.md")))
    {
        let path: PathBuf = root.join(&page);
        let examples = examples(&fs::read_to_string(&path).expect("a page"));
        assert!(!examples.is_empty(), "{page} has no example");
        for Example {
            command,
            output: printed,
        } in examples
        {
            wait_until(PROJECTED, &format!("{page}: {command}"), async || {
                let output = runner.run(&command).await?;
                let is_right = match &printed {
                    Some(printed) => is_as_printed(printed, &output),
                    None => !output.contains("\"status\":404"),
                };
                if is_right { Ok(()) } else { Err(output) }
            })
            .await;
        }
    }
}

/// A newcomer takes each warning of `dev`, or of a library in it, for a fault. The dead letters that the README
/// announces are the one exception.
#[tokio::test(flavor = "multi_thread")]
async fn dev_logs_no_warnings() {
    let (running, brokers) = dev().await;
    // The last client that it makes publishes the dead letters.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .create()
        .expect("a consumer");
    wait_until(SOON, "the dead letters are published", async || {
        let offsets = tokio::task::block_in_place(|| {
            consumer.fetch_watermarks("user.events.dlq.order", 0, Duration::from_secs(5))
        });
        match offsets {
            Ok((_, end)) if end > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let log = running.app.log();
    assert!(log.len() > 10, "{log:?}");
    let is_troubling = |line: &&Value| {
        let is_notice = line["target"] == "sqlx::postgres::notice";
        let is_warning = line["level"] == "WARN" || line["level"] == "ERROR";
        // On a loaded machine sqlx warns of connections and statements that take seconds.
        let is_slow = line["target"] == "sqlx::pool::acquire" || line["target"] == "sqlx::query";
        let is_documented = line["message"] == "records became dead letters";
        is_notice || (is_warning && !is_slow && !is_documented)
    };
    let troubling: Vec<&Value> = log.iter().filter(is_troubling).collect();
    assert!(troubling.is_empty(), "{troubling:?}");
}

/// Asserts that each read answers 200 to the examples of its required parameters: `/docs` tries it with these. An id of
/// a dead letter is a new one in each database.
async fn assert_tried_reads_answer(rest: &Rest) {
    let document = rest.get("/openapi.json").await.json();
    let mut tried = 0;
    for (template, item) in document["paths"].as_object().expect("paths") {
        let Some(parameters) = item["get"]["parameters"].as_array() else {
            continue;
        };
        // Streams have no end, and the page does not try them.
        if item["get"]["responses"]["200"]["content"]["text/event-stream"].is_object() {
            continue;
        }
        let (mut path, mut query) = (template.clone(), Vec::new());
        for parameter in parameters.iter().filter(|p| p["required"] == true) {
            let name = parameter["name"].as_str().expect("a name");
            let values = match &parameter["example"] {
                Value::Array(values) => values.clone(),
                value => vec![value.clone()],
            };
            for value in values {
                let value = escape(value.as_str().expect("an example"));
                match parameter["in"].as_str() {
                    Some("path") => path = path.replace(&format!("{{{name}}}"), &value),
                    _ => query.push(format!("{name}={value}")),
                }
            }
        }
        // Of the filters of segments one is required, whichever it is.
        if template == "/v1/dead-letters/{id}" || template == "/v1/personalization/segments" {
            continue;
        }
        let path = format!("{path}?{}", query.join("&"));
        wait_until(PROJECTED, &path, async || match rest.get(&path).await {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text()),
        })
        .await;
        tried += 1;
    }
    assert!(tried >= 12, "{tried} reads");
}
