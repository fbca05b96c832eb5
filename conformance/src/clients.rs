//! Which client libraries there are, where each comes from, and what a program needs to find it.
//!
//! A library is a [`Recipe`]: steps that fill a directory under `target/clients/`. The recipes are
//! data; how a step is done is the business of [`provision`](crate::provision).

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::provision::{Provisioned, Recipe, Step, provision, python};

/// A client library, or a set of them, that a program speaks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The present Python libraries: pika, kombu, py-amqp, aio-pika, stomp.py, prometheus_client.
    Python,
    /// pika 0.10.0, of 2015.
    Pika010,
    /// pika 0.12.0, of 2018: the last line with the old API.
    Pika012,
    /// pika 1.3.2 with its own acceptance tests and the event loops that they run on.
    PikaSuite,
    /// py-amqplib 1.0.2, of 2011, which speaks AMQP 0-8; with its own tests.
    Amqplib,
    /// txAMQP 0.8.2, which speaks each version from its specification file; with its own tests.
    TxAmqp,
    /// stomp.py 8.1.0 with its own tests.
    StompPySuite,
    /// Perl's Net::Stomp with IO::Socket::SSL.
    NetStomp,
    /// Net::Stomp and the present Python libraries together.
    PythonAndNetStomp,
}

const PYTHON: Recipe =
    Recipe { name: "python", steps: &[Step::Pip(include_str!("../requirements/python.txt"))] };
const PIKA_0_10: Recipe = Recipe {
    name: "pika-0.10",
    steps: &[Step::Pip(include_str!("../requirements/pika-0.10.txt"))],
};
const PIKA_0_12: Recipe = Recipe {
    name: "pika-0.12",
    steps: &[Step::Pip(include_str!("../requirements/pika-0.12.txt"))],
};
const PIKA_SUITE: Recipe = Recipe {
    name: "pika-suite",
    steps: &[
        Step::Pip(include_str!("../requirements/pika-suite.txt")),
        Step::DebianUpstream {
            release: "trixie",
            source: "python-pika",
            tarball: "python-pika_1.3.2.orig.tar.gz",
        },
    ],
};
const AMQPLIB: Recipe = Recipe {
    name: "amqplib",
    steps: &[
        Step::Pip(include_str!("../requirements/amqplib.txt")),
        Step::Sdist("amqplib==1.0.2"),
        Step::Python3 { directory: "amqplib-1.0.2", parts: &["amqplib", "tests"] },
    ],
};
const TXAMQP: Recipe = Recipe {
    name: "txamqp",
    steps: &[
        Step::Pip(include_str!("../requirements/txamqp.txt")),
        Step::DebianBinary(&["amqp-specs"]),
    ],
};
const STOMP_PY_SUITE: Recipe = Recipe {
    name: "stomp-py-suite",
    steps: &[
        Step::Pip(include_str!("../requirements/stomp-py-suite.txt")),
        Step::DebianUpstream {
            release: "trixie",
            source: "python-stomp",
            tarball: "python-stomp_8.1.0.orig.tar.gz",
        },
    ],
};
const NET_STOMP: Recipe = Recipe {
    name: "net-stomp",
    steps: &[Step::DebianBinary(&[
        "libnet-stomp-perl",
        "libclass-accessor-perl",
        "liblog-any-perl",
        "libio-socket-ssl-perl",
        "libnet-ssleay-perl",
    ])],
};

impl Client {
    /// Fetches the library unless it is there, and says how programs find it.
    pub(crate) fn provision(self) -> Result<Provisioned, Failure> {
        match self {
            Self::Python => python_with(&PYTHON, &[]),
            Self::Pika010 => {
                Ok(python_with(&PIKA_0_10, &[])?.with("WARREN_CONFORMANCE_PIKA", "0.10.0"))
            }
            Self::Pika012 => {
                Ok(python_with(&PIKA_0_12, &[])?.with("WARREN_CONFORMANCE_PIKA", "0.12.0"))
            }
            Self::PikaSuite => suite(&PIKA_SUITE, "pika-1.3.2"),
            Self::Amqplib => {
                let directory = provision(&AMQPLIB)?.join("amqplib-1.0.2");
                let provisioned = python_with(&AMQPLIB, std::slice::from_ref(&directory))?;
                Ok(provisioned.with("WARREN_CONFORMANCE_SUITE", directory))
            }
            Self::TxAmqp => {
                let specifications = provision(&TXAMQP)?.join("usr/share/amqp/specs");
                let provisioned = python_with(&TXAMQP, &[])?;
                Ok(provisioned.with("WARREN_CONFORMANCE_AMQP_SPECS", specifications))
            }
            Self::StompPySuite => suite(&STOMP_PY_SUITE, "stomp.py-8.1.0"),
            Self::NetStomp => perl(),
            Self::PythonAndNetStomp => {
                let python = python_with(&PYTHON, &[])?;
                let perl = perl()?;
                Ok(Provisioned {
                    interpreter: python.interpreter,
                    variables: python.variables.into_iter().chain(perl.variables).collect(),
                })
            }
        }
    }
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Python with a recipe's libraries, `further` directories of modules, and what the programs share.
fn python_with(recipe: &Recipe, further: &[PathBuf]) -> Result<Provisioned, Failure> {
    let site = provision(recipe)?.join("site");
    let path = [programs().join("python"), site].into_iter().chain(further.iter().cloned());
    let path = std::env::join_paths(path)
        .map_err(|error| Failure(format!("a directory's name cannot be in PYTHONPATH: {error}")))?;
    let interpreter = python();
    Ok(Provisioned { interpreter, variables: Vec::new() }
        .with("PYTHONPATH", path)
        // The user's own packages are none of the test's, and the programs' directory stays clean.
        .with("PYTHONNOUSERSITE", "1")
        .with("PYTHONDONTWRITEBYTECODE", "1"))
}

/// Python with a library whose own tests lie in `directory` of the recipe.
fn suite(recipe: &Recipe, directory: &str) -> Result<Provisioned, Failure> {
    let directory = provision(recipe)?.join(directory);
    Ok(python_with(recipe, &[])?.with("WARREN_CONFORMANCE_SUITE", directory))
}

fn perl() -> Result<Provisioned, Failure> {
    let modules = provision(&NET_STOMP)?;
    let mut path = vec![programs().join("perl"), modules.join("usr/share/perl5")];
    path.extend(compiled_modules(&modules)?);
    let path = std::env::join_paths(path)
        .map_err(|error| Failure(format!("a directory's name cannot be in PERL5LIB: {error}")))?;
    Ok(Provisioned { interpreter: "perl".into(), variables: Vec::new() }.with("PERL5LIB", path))
}

/// Compiled Perl modules lie in `usr/lib/<architecture>/perl5/<version>`.
fn compiled_modules(modules: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = vec![modules.join("usr/lib")];
    for level in ["*", "perl5", "*"] {
        let mut next = Vec::new();
        for directory in found {
            if level == "*" {
                let entries =
                    std::fs::read_dir(&directory).map_err(Failure::io("read", &directory))?;
                next.extend(entries.flatten().map(|entry| entry.path()));
            } else if directory.join(level).is_dir() {
                next.push(directory.join(level));
            }
        }
        found = next;
    }
    Ok(found)
}
