//! What only this machine can answer about the settings: certificates, directories, memory, open
//! files.
//!
//! Nothing is created or changed by [`check`]; `check-config` runs it beside a live broker.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::layers::Loaded;
use super::open_files::OPEN_FILES_MIN;
use super::problem::{Place, Problem};
use super::sections::TlsFiles;
use super::units::Size;
use crate::tls;

/// Checks what the settings name on this machine: TLS files, the data directory, and the directory
/// of the control socket; and that the process may open enough files.
#[must_use]
pub fn check(loaded: &Loaded) -> Vec<Problem> {
    let s = &loaded.settings;
    let mut problems = Vec::new();

    // One of a kind each, so that a common certificate is complained about once.
    let mut tried: Vec<TlsFiles> = Vec::new();
    let common = s.tls.files_for(&super::ListenerTls::default());
    for (section, files) in
        [("tls", common), ("amqp.tls", s.amqp_tls()), ("stomp.tls", s.stomp_tls())]
    {
        let Some(files) = files else { continue };
        if tried.contains(&files) {
            continue;
        }
        for error in tls::check(&files) {
            let problem = loaded.problem(&blamed(loaded, section, &error), error.to_string(), None);
            // Two listeners may share one of their files.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        tried.push(files);
    }

    if let Err(why) = directory_usable(&s.data_dir) {
        problems.push(loaded.problem("data_dir", why, None));
    }
    let socket = s.control_socket();
    if let Some(directory) = socket.parent()
        && directory != s.data_dir
        && let Err(why) = directory_usable(directory)
    {
        problems.push(loaded.problem("control.socket", why, None));
    }
    problems.extend(too_few_files(open_files_limit_at_most()));
    problems
}

/// The problem of a process that may open `limit` files at most, if that is one.
fn too_few_files(limit: u64) -> Option<Problem> {
    let message = format!(
        "the process may have {limit} open files; the broker needs {OPEN_FILES_MIN} at least"
    );
    let help =
        "raise the limit: `ulimit -n`, or LimitNOFILE of the systemd unit; a connection takes one";
    (limit < OPEN_FILES_MIN).then(|| Problem {
        key: None,
        message,
        place: Place::Process,
        help: Some(help.into()),
    })
}

/// The key that names the file in `error`: in `section` if written there, else in `tls`.
fn blamed(loaded: &Loaded, section: &str, error: &tls::TlsError) -> String {
    let name = match error.role {
        tls::Role::Certificate => "certificate",
        tls::Role::Key => "key",
        tls::Role::ClientCa => "client_ca",
    };
    let own = format!("{section}.{name}");
    if loaded.origins.contains_key(&own) { own } else { format!("tls.{name}") }
}

/// Whether files can be made in `directory`, or the directory itself can be made.
fn directory_usable(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    // The nearest ancestor that exists is the one that must let us in.
    let mut nearest = directory;
    let here = PathBuf::from(".");
    loop {
        if nearest.as_os_str().is_empty() {
            nearest = &here;
        }
        match nearest.metadata() {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) => return Err(format!("{} is not a directory", nearest.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match nearest.parent() {
                Some(parent) => nearest = parent,
                None => return Err(format!("{shown} cannot be made: {error}")),
            },
            Err(error) => return Err(format!("cannot look at {}: {error}", nearest.display())),
        }
    }
    access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        if nearest == directory {
            format!("{shown} is not writable: {error}")
        } else {
            format!("{shown} does not exist and {} is not writable: {error}", nearest.display())
        }
    })
}

/// The memory that this process may have: the smallest of the machine's memory and the limits of its
/// control groups (version 2). `None` when `/proc` does not say.
#[must_use]
pub fn memory_available() -> Option<Size> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = mem_total(&meminfo)?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_limits(Path::new("/sys/fs/cgroup"), &groups);
    Some(limits.into_iter().fold(machine, Size::min))
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB whatever it calls them.
fn mem_total(meminfo: &str) -> Option<Size> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Size::new(kib.checked_mul(1024)?))
}

/// `memory.max` of the group in `/proc/self/cgroup` and of every group above it.
fn group_limits(root: &Path, groups: &str) -> Vec<Size> {
    // Version 2 has the one line `0::/path`.
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    root.join(path)
        .ancestors()
        .take_while(|directory| directory.starts_with(root))
        // "max" means no limit here, and does not parse.
        .filter_map(|directory| std::fs::read_to_string(directory.join("memory.max")).ok())
        .filter_map(|limit| limit.trim().parse().ok().map(Size::new))
        .collect()
}

/// The open files that this process may have now.
#[must_use]
pub fn open_files_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The open files that this process may have once it has asked for them, as a broker does when it starts.
#[must_use]
pub fn open_files_limit_at_most() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the limit of open files as far as it may go without privileges, and returns it.
///
/// The soft limit is low by tradition, for programs that use `select`; we do not.
#[must_use]
pub fn raise_open_files_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let wanted = Rlimit { current: maximum, maximum };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            return maximum.unwrap_or(u64::MAX);
        }
    }
    // As high as it was; that is no reason not to start.
    open_files_limit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_smallest_of_machine_and_groups() {
        assert_eq!(mem_total("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(Size::mib(2)));
        assert_eq!(mem_total("Nothing: 1 kB"), None);

        let root = tempfile::tempdir().expect("a directory");
        let inner = root.path().join("system.slice/warren.service");
        std::fs::create_dir_all(&inner).expect("directories");
        std::fs::write(inner.join("memory.max"), "max\n").expect("a file");
        std::fs::write(root.path().join("system.slice/memory.max"), "1048576\n").expect("a file");
        let limits = group_limits(root.path(), "0::/system.slice/warren.service\n");
        assert_eq!(limits, [Size::mib(1)]);
        assert_eq!(group_limits(root.path(), "5:memory:/docker/x\n"), []);
        assert!(memory_available().is_some(), "this machine has memory");
    }

    #[test]
    fn a_directory_is_usable_if_it_is_there_or_can_be_made() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(directory_usable(root.path()), Ok(()));
        assert_eq!(directory_usable(&root.path().join("a/b/c")), Ok(()));
        let file = root.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let refused = directory_usable(&file.join("below")).expect_err("a file in the way");
        assert!(refused.contains("file"), "{refused}");
    }

    #[test]
    fn too_few_open_files_are_refused_in_words() {
        assert_eq!(too_few_files(OPEN_FILES_MIN), None);
        let said = too_few_files(64).expect("too few").to_string();
        for words in ["64 open files", "needs 96", "ulimit -n", "LimitNOFILE"] {
            assert!(said.contains(words), "{words} in {said}");
        }
    }

    #[test]
    fn the_limit_of_open_files_only_rises() {
        let before = open_files_limit();
        assert!(raise_open_files_limit() >= before);
    }
}
