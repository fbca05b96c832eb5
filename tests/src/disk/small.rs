//! A file system of a few MiB.
//!
//! It is a tmpfs in a mount namespace that a process of its own keeps alive, so that nothing has to be unmounted, not
//! even after a panic: when that process and the brokers in the namespace have ended, it is gone. Root can make one,
//! and so can everybody whom the system lets have a user namespace. The test reaches the files through
//! `/proc/PID/root`. A tmpfs forgets nothing while it is mounted, which is what a kill of the broker needs, and
//! everything afterwards.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::statvfs;
use tempfile::TempDir;

use crate::process::Place;

/// How to get a mount namespace: as root, or as anybody.
const WAYS: [(&[&str], &[&str]); 2] =
    [(&["-m"], &["-m"]), (&["-rm"], &["-U", "-m", "--preserve-credentials"])];

/// Mounts, says so, and stays until its input ends.
const SCRIPT: &str =
    r#"mount -t tmpfs -o "size=$0,mode=0700" warren-test "$1" && echo mounted && exec cat"#;

/// A small file system with nothing in it but a data directory and what fills it up.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    /// The mount point, and the log of brokers, which is not to be on the small disk.
    directory: TempDir,
    /// Enters the namespace.
    wrapper: Vec<OsString>,
}

impl SmallDisk {
    /// A file system of so many MiB.
    #[must_use]
    pub fn new(mib: u64) -> Self {
        let directory = match TempDir::with_prefix("warren-small-") {
            Ok(directory) => directory,
            Err(error) => panic!("a directory: {error}"),
        };
        let mut said = String::new();
        for (unshare, nsenter) in WAYS {
            match hold(unshare, mib, directory.path()) {
                Ok(holder) => {
                    let target =
                        [OsString::from("nsenter"), "-t".into(), holder.id().to_string().into()];
                    let wrapper = target.into_iter().chain(nsenter.iter().map(OsString::from));
                    return Self { holder, directory, wrapper: wrapper.collect() };
                }
                Err(error) => said = format!("{said}\n`unshare {}`: {error}", unshare.join(" ")),
            }
        }
        panic!(
            "a small file system cannot be mounted. This test needs unshare and nsenter (util-linux), and either \
             CAP_SYS_ADMIN or user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0):{said}"
        )
    }

    /// The directory as the broker sees it.
    fn inside(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// The directory as this process sees it.
    fn outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let path = self.directory.path();
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where a broker is to run whose data directory is on it.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            data_dir: self.outside().join("data"),
            inside: self.inside().join("data"),
            // Behind the mount point: on the file system that the temporary directory is on.
            log: self.directory.path().join("log"),
            wrapper: self.wrapper.clone(),
        }
    }

    /// Octets that are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        match statvfs(self.outside()) {
            Ok(space) => space.f_bavail * space.f_frsize,
            Err(error) => panic!("cannot read the free space: {error}"),
        }
    }

    /// Writes a file that is none of the broker's until `left` octets are free; with 0, until there is no block left.
    pub fn fill(&self, left: u64) {
        let path = self.foreign();
        let file = File::options().create(true).append(true).open(&path);
        let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // In big steps first. The broker may take and give meanwhile: what counts is what is free now.
        for step in [1 << 20, 4096_usize] {
            let zeros = vec![0; step];
            while self.free() >= left + step as u64 || (left == 0 && step == 4096) {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        }
    }

    /// Removes what [`fill`](Self::fill) has written.
    pub fn make_room(&self) {
        let path = self.foreign();
        if let Err(error) = fs::remove_file(&path) {
            panic!("{}: {error}", path.display());
        }
    }

    fn foreign(&self) -> PathBuf {
        self.outside().join("foreign")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its input ends, and so does it. Both fail only when it has ended already.
        drop(self.holder.stdin.take());
        self.holder.wait().ok();
    }
}

/// Starts the process that keeps the file system, once it is mounted.
fn hold(unshare: &[&str], mib: u64, mount_point: &Path) -> Result<Child, String> {
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", SCRIPT]).arg(format!("{mib}m")).arg(mount_point);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        // An end without the word is a failure, of which standard error says more.
        BufReader::new(output).read_line(&mut said).ok();
    }
    if said == "mounted\n" {
        return Ok(child);
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}, {}", output.status, errors.trim()))
}
