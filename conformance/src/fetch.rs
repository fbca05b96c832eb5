//! The steps of a recipe, done with the tools of the machine: pip, apt-get, dpkg, tar.
//!
//! Nothing here needs root. What a step does not find is named in its failure together with the
//! package that brings it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::provision::{Step, python};

/// Does one step in `directory`.
pub(crate) fn perform(step: &Step, directory: &Path) -> Result<(), Failure> {
    match step {
        Step::Pip(requirements) => pip_install(requirements, directory),
        Step::Sdist(requirement) => sdist(requirement, directory),
        Step::Python3 { directory: source, parts } => {
            python3(&directory.join(source), parts, directory)
        }
        Step::DebianBinary(packages) => debian_binary(packages, directory),
        Step::DebianUpstream { release, source, tarball } => {
            debian_upstream(release, source, tarball, directory)
        }
    }
}

fn pip_install(requirements: &str, directory: &Path) -> Result<(), Failure> {
    let file = directory.join("requirements.txt");
    fs::write(&file, requirements).map_err(Failure::io("write", &file))?;
    let mut pip = pip(directory)?;
    pip.args(["install", "--no-deps", "--requirement"]).arg(&file);
    pip.arg("--target").arg(directory.join("site"));
    finish(&mut pip, "PyPI is needed to install a client library").map(drop)
}

fn sdist(requirement: &str, directory: &Path) -> Result<(), Failure> {
    let archives = make(&directory.join("sdist"))?;
    let mut pip = pip(directory)?;
    pip.args(["download", "--no-deps", "--no-binary", ":all:", requirement]);
    pip.arg("--dest").arg(&archives);
    finish(&mut pip, "PyPI is needed to download a client library's source")?;
    for archive in files(&archives)? {
        unpack(&archive, directory)?;
    }
    Ok(())
}

fn python3(source: &Path, parts: &[&str], directory: &Path) -> Result<(), Failure> {
    let mut fissix = Command::new(python());
    fissix.env("PYTHONPATH", directory.join("site")).current_dir(source);
    fissix.args(["-m", "fissix", "--write", "--nobackups", "--no-diffs"]).args(parts);
    finish(&mut fissix, "a Python 2 library could not be translated").map(drop)
}

/// pip of the interpreter; where Debian's Python has none, the one in the package of pip's wheels.
fn pip(directory: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(python());
    command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PIP_ROOT_USER_ACTION", "ignore");
    command.env("PIP_NO_INPUT", "1").env("PYTHONNOUSERSITE", "1");
    let has_pip = Command::new(python())
        .args(["-c", "import pip"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if has_pip {
        command.args(["-m", "pip"]);
        return Ok(command);
    }
    let wheels = directory.join("usr/share/python-wheels");
    if !wheels.exists() {
        debian_binary(&["python3-pip-whl"], directory).map_err(|failure| {
            Failure(format!("python3 has no pip: apt install python3-pip ({failure})"))
        })?;
    }
    let wheel = files(&wheels)?.into_iter().find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pip-"))
    });
    let wheel =
        wheel.ok_or_else(|| Failure("python3 has no pip: apt install python3-pip".to_owned()))?;
    command.arg(wheel.join("pip"));
    Ok(command)
}

fn debian_binary(packages: &[&str], directory: &Path) -> Result<(), Failure> {
    let archives = make(&directory.join("debian"))?;
    let download = |apt: &mut Command| {
        apt.arg("download").args(packages).current_dir(&archives);
        finish(apt, "Debian's packages are needed")
    };
    // The machine's own package lists may be absent or old; then private ones are made.
    if download(&mut apt(None)?).is_err() {
        let lists = Lists::of_this_machine(directory)?;
        download(&mut apt(Some(&lists))?).map_err(|failure| {
            Failure(format!("{failure}\nIf this is no Debian: apt install {}", packages.join(" ")))
        })?;
    }
    for archive in files(&archives)? {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--extract").arg(&archive).arg(directory);
        finish(&mut dpkg, "dpkg unpacks Debian's packages")?;
    }
    Ok(())
}

fn debian_upstream(
    release: &str,
    source: &str,
    tarball: &str,
    directory: &Path,
) -> Result<(), Failure> {
    let archives = make(&directory.join("upstream"))?;
    let lists = Lists::of_sources(release, directory)?;
    let mut apt = apt(Some(&lists))?;
    apt.args(["source", "--download-only", source]).current_dir(&archives);
    // Mirrors drop Debian's own part of a source package earlier than the upstream archive, which
    // is all that is wanted; so the file counts, not the exit status.
    let outcome = finish(&mut apt, "Debian's source packages are needed");
    let archive = archives.join(tarball);
    if archive.exists() {
        return unpack(&archive, directory);
    }
    outcome?;
    Err(Failure(format!("Debian {release} has no {tarball} in {source} any more")))
}

/// Package lists of our own, so that apt-get works without root.
struct Lists {
    /// Where apt keeps them.
    state: PathBuf,
    /// A sources file instead of the machine's.
    sources: Option<PathBuf>,
}

impl Lists {
    fn of_this_machine(directory: &Path) -> Result<Self, Failure> {
        Self { state: directory.join("apt-machine"), sources: None }.updated()
    }

    fn of_sources(release: &str, directory: &Path) -> Result<Self, Failure> {
        let sources = directory.join(format!("{release}.list"));
        let line = format!(
            "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             {mirror} {release} main\n",
            mirror = debian_mirror()?
        );
        fs::write(&sources, line).map_err(Failure::io("write", &sources))?;
        Self { state: directory.join("apt-sources"), sources: Some(sources) }.updated()
    }

    fn updated(self) -> Result<Self, Failure> {
        make(&self.state.join("lists/partial"))?;
        make(&self.state.join("cache/archives/partial"))?;
        finish(apt(Some(&self))?.arg("update"), "Debian's package lists are needed")?;
        Ok(self)
    }
}

fn apt(lists: Option<&Lists>) -> Result<Command, Failure> {
    let there = Command::new("apt-get").arg("--version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        return Err(Failure(
            "this machine has no apt-get, from which the library would come".to_owned(),
        ));
    }
    let mut apt = Command::new("apt-get");
    apt.arg("--quiet");
    // Running as root, apt would hand the download to a user who cannot write here.
    apt.args(["--option", "APT::Sandbox::User=root"]);
    if let Some(lists) = lists {
        let mut option = |name: &str, path: &Path| {
            apt.arg("--option").arg(format!("{name}={}", path.display()));
        };
        option("Dir::State", &lists.state);
        option("Dir::Cache", &lists.state.join("cache"));
        if let Some(sources) = &lists.sources {
            option("Dir::Etc::sourcelist", sources);
            option("Dir::Etc::sourceparts", Path::new("/dev/null"));
        }
    }
    Ok(apt)
}

/// The mirror of Debian from which this machine takes its packages.
fn debian_mirror() -> Result<String, Failure> {
    let mut apt = apt(None)?;
    apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let targets = finish(&mut apt, "the address of a Debian mirror is needed")?;
    let mirror = targets.lines().find(|target| target.trim_end_matches('/').ends_with("/debian"));
    mirror.map(str::to_owned).ok_or_else(|| {
        Failure("this machine's apt knows no mirror of Debian, which has the sources".to_owned())
    })
}

fn unpack(archive: &Path, directory: &Path) -> Result<(), Failure> {
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(directory);
    finish(&mut tar, "tar unpacks source archives").map(drop)
}

fn make(directory: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(directory).map_err(Failure::io("create", directory))?;
    Ok(directory.to_owned())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(directory).map_err(Failure::io("read", directory))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Runs a command to its end and returns what it printed; on failure says why it was run, too.
fn finish(command: &mut Command, why: &str) -> Result<String, Failure> {
    let named = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure(format!("{why}, but {named} does not run: {error}")))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    Err(Failure(format!(
        "{why}, but {named} ended with {}:\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
    )))
}
