#!/usr/bin/env python3
"""Compares Warren, the null broker and RabbitMQ on this machine and writes the figures into BENCHMARKS.md.

All brokers are started as children from a temporary directory, on free loopback ports, and every scenario is run
on them in turn (A B C A B C ...), so that a machine that slows down slows all of them down. What is written are
medians. The load generator is `warren bench`, for all of them the same.

Needs Python 3.9, a release build (`cargo build --release`) and, for its column, RabbitMQ. Ends every process that
it started, and no other.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import durable

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

BEGIN = "<!-- figures: begin (written by conformance/bench/compare.py) -->"
END = "<!-- figures: end -->"

# Seconds until a broker must accept connections, and until it must be gone.
START_TIME_MAX = 90
STOP_TIME_MAX = 30

# Seconds by which a second generator starts before the first one, and by which its measurement is longer.
BESIDE_LEAD = 1
BESIDE_MORE = 5

# Seconds for each of the disk's limits.
DISK_TIME = 5

# Files that a broker or the generator needs besides a file for each held connection.
FILES_BESIDES = 1000


class Failure(Exception):
    """A sentence for the user."""


# ---------------------------------------------------------------------------------------------- scenarios


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One line of a table: a title and what `warren bench` is asked."""

    title: str
    words: tuple
    protocol: str = "amqp"
    # Which brokers cannot do it, and why nobody is surprised.
    without: tuple = ()
    # What a second `warren bench` does meanwhile, if anything.
    beside: tuple = ()

    def command(self, durations):
        return timed(self.words, durations, self.words[0])

    def command_beside(self, durations):
        return timed(self.beside, durations, "beside")

    def halves(self, durations):
        """The commands before and after a restart."""
        words = [*self.command(durations), "--queue-prefix", "restart", "--phase"]
        return [*words, "publish"], [*words, "drain"]

    def all_commands(self, kind, durations):
        """Every command that it comes to in a table of this kind."""
        if kind == "restart":
            return self.halves(durations)
        beside = [self.command_beside(durations)] if self.beside else []
        return [self.command(durations), *beside]


def timed(words, durations, kind):
    return [words[0], *durations.get(kind, ()), *words[1:]]


def scenario(title, words, **more):
    return Scenario(title, tuple(shlex.split(words)), **more)


def sections(connections, backlog=1_000_000):
    """The tables: title, kind and scenarios."""
    pairs = "--producers 4 --consumers 4 --queues 4"
    kept = "throughput --size 1024 --persistent --durable --ack manual --prefetch 500"
    pairs_16 = "--producers 16 --consumers 16 --queues 16"
    filled = f"backlog --messages {backlog} --size 1024"
    return [
        (
            "Throughput",
            "flow",
            [
                scenario("one pair, 16 B", "throughput --size 16"),
                scenario("one pair, 1 KiB", "throughput --size 1024"),
                scenario("one pair, 1 KiB, manual ack", "throughput --size 1024 --ack manual"),
                scenario("four pairs, 16 B", f"throughput --size 16 {pairs}"),
                scenario("four pairs, 1 KiB", f"throughput --size 1024 {pairs}"),
                scenario(
                    "fanout to ten queues, 1 KiB",
                    "throughput --size 1024 --exchange-shape fanout --queues 10 --consumers 10",
                ),
                scenario(
                    "direct, 1,000 bindings, 16 B",
                    "throughput --size 16 --exchange-shape direct --bindings 1000",
                ),
                scenario(
                    "topic, 1,000 bindings, 16 B",
                    "throughput --size 16 --exchange-shape topic --bindings 1000",
                    without=("null",),
                ),
                scenario("STOMP, one pair, 1 KiB", "throughput --size 1024", protocol="stomp"),
            ],
        ),
        (
            "Confirmed throughput",
            "flow",
            [
                scenario(
                    "window 1,000, transient, 1 KiB", "throughput --size 1024 --confirm-window 1000"
                ),
            ],
        ),
        (
            "Durable",
            "confirmed",
            [
                scenario("one pair, window 1,000, 1 KiB", f"{kept} --confirm-window 1000", without=("null",)),
                scenario("one pair, window 1, 1 KiB", f"{kept} --confirm-window 1", without=("null",)),
                scenario("16 pairs, window 100, 1 KiB", f"{kept} --confirm-window 100 {pairs_16}", without=("null",)),
            ],
        ),
        (
            "Durable beside transient",
            "beside",
            [
                scenario(
                    "transient pair, 1 KiB, beside a durable pair, window 1,000",
                    "throughput --size 1024",
                    beside=tuple(shlex.split(f"{kept} --confirm-window 1000")),
                    without=("null",),
                ),
            ],
        ),
        ("Durable backlog", "backlog", [scenario(f"{backlog:,} of 1 KiB", filled, without=("null",))]),
        (
            "Durable restart",
            "restart",
            [scenario(f"kill -9 with {backlog:,} of 1 KiB", filled, without=("null", "rabbitmq"))],
        ),
        (
            "Latency at 2,000 messages a second",
            "latency",
            [
                scenario("AMQP, 1 KiB", "latency --rate 2000 --size 1024"),
                scenario("STOMP, 1 KiB", "latency --rate 2000 --size 1024", protocol="stomp"),
            ],
        ),
        (
            "Connections",
            "connections",
            [
                scenario(
                    f"AMQP, {connections:,} held",
                    f"connections --count {connections}",
                    without=("null",),
                ),
                scenario(
                    f"STOMP, {connections:,} held",
                    f"connections --count {connections}",
                    protocol="stomp",
                    without=("null",),
                ),
            ],
        ),
        (
            "Churn",
            "churn",
            [
                # The null broker keeps no channels and no queues: its figures would say nothing.
                scenario("AMQP connections", "churn connections", without=("null",)),
                scenario("AMQP channels", "churn channels", without=("null",)),
                scenario("AMQP queues", "churn queues", without=("null",)),
                scenario(
                    "STOMP connections", "churn connections", protocol="stomp", without=("null",)
                ),
            ],
        ),
    ]


# ------------------------------------------------------------------------------------------------ brokers


def free_ports(count):
    """Loopback ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def is_listening(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def children_of(pid):
    """Processes below `pid`, nearest first."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything; the parent is the second field behind it.
                behind = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(behind[1]), []).append(int(entry.name))
    found, level = [], [pid]
    while level:
        level = [child for parent in level for child in parents.get(parent, ())]
        found.extend(level)
    return found


class Broker:
    """A broker started by this script: where it listens, and which process to watch."""

    def __init__(self, name, directory):
        self.name = name
        self.directory = directory
        self.version = name
        self.amqp_port, self.stomp_port = free_ports(2)
        self.processes = []
        # When the last process was started, by the monotonic clock.
        self.spawned_at = 0.0

    def url(self, protocol):
        port = {"amqp": self.amqp_port, "stomp": self.stomp_port}[protocol]
        return f"{protocol}://guest:guest@127.0.0.1:{port}"

    def spawn(self, command, **environment):
        """Starts a process in a group of its own."""
        log = open(self.directory / f"{pathlib.Path(command[0]).name}.log", "wb")
        with log:
            self.spawned_at = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def await_ready(self):
        deadline = time.monotonic() + START_TIME_MAX
        while not (is_listening(self.amqp_port) and is_listening(self.stomp_port)):
            ended = [process for process in self.processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                    for log in sorted(self.directory.glob("*.log"))
                )
                raise Failure(f"{self.name} did not start:\n{logs}")
            time.sleep(0.1)

    def watched_pid(self):
        return self.processes[-1].pid

    def kill(self):
        """Ends the last process that was started without a chance to do anything more."""
        process = self.processes.pop()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self):
        """Ends the groups of the processes that were started, last first."""
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(STOP_TIME_MAX)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Warren(Broker):
    def start(self, options):
        self.version = output([options.warren, "--version"]).strip().replace("warren", "Warren")
        settings = {
            "amqp.listen": [f"127.0.0.1:{self.amqp_port}"],
            "stomp.listen": [f"127.0.0.1:{self.stomp_port}"],
            "metrics.listen": [f"127.0.0.1:{free_ports(1)[0]}"],
        }
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        self.spawn([options.warren, "server", "--data-dir", self.directory / "data", *sets])


class Null(Broker):
    def start(self, options):
        self.version = "null broker"
        self.spawn(
            [
                *(options.bench, "bench", "null", "--serve", "--serve-for", "12h"),
                *("--listen", f"127.0.0.1:{self.amqp_port}"),
                *("--stomp-listen", f"127.0.0.1:{self.stomp_port}"),
            ]
        )


class RabbitMQ(Broker):
    """A private node: own name, cookie, port mapper and directories; nothing of an installed service is used."""

    def start(self, options):
        distribution, mapper = free_ports(2)
        for name in ("home", "mnesia", "log"):
            (self.directory / name).mkdir()
        (self.directory / "enabled_plugins").write_text("[rabbitmq_stomp].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.amqp_port}\n"
            f"stomp.listeners.tcp.1 = 127.0.0.1:{self.stomp_port}\n"
        )
        self.spawn([options.epmd, "-port", str(mapper), "-address", "127.0.0.1"])
        self.spawn(
            [options.rabbitmq],
            HOME=str(self.directory / "home"),
            ERL_EPMD_PORT=str(mapper),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODENAME="bench@localhost",
            RABBITMQ_NODE_PORT=str(self.amqp_port),
            RABBITMQ_DIST_PORT=str(distribution),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
            RABBITMQ_MNESIA_BASE=str(self.directory / "mnesia"),
            RABBITMQ_LOG_BASE=str(self.directory / "log"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(self.directory / "enabled_plugins"),
            RABBITMQ_CONFIG_FILE=str(self.directory / "rabbitmq.conf"),
        )

    def watched_pid(self):
        script = self.processes[-1].pid
        for pid in [script, *children_of(script)]:
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "beam.smp":
                return pid
        raise Failure("RabbitMQ's virtual machine is not among the script's children")


BROKERS = {"warren": Warren, "null": Null, "rabbitmq": RabbitMQ}


# ----------------------------------------------------------------------------------------------- measuring


def output(command):
    """What a command prints; its complaint becomes a `Failure`."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")
    return done.stdout


def bench(options, broker, one, words):
    """The command of one run of the generator."""
    target = ("--url", broker.url(one.protocol), "--broker-pid", str(broker.watched_pid()), "--json")
    return [options.bench, "bench", *words, *target]


def measure(options, broker, one, kind, durations):
    """One run: the generator's report, or the reason why there is none."""
    measured = {"beside": measure_beside, "restart": measure_restart}.get(kind, measure_alone)
    try:
        return measured(options, broker, one, durations)
    except (Failure, OSError) as failure:
        return {"failure": str(failure)}


def measure_alone(options, broker, one, durations):
    return json.loads(output(bench(options, broker, one, one.command(durations))))


def measure_beside(options, broker, one, durations):
    """The same run alone, then while a second generator works, which starts earlier and ends later."""
    alone = measure_alone(options, broker, one, durations)
    second = subprocess.Popen(
        bench(options, broker, one, one.command_beside(durations)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(BESIDE_LEAD)
        report = measure_alone(options, broker, one, durations)
        printed, complaint = second.communicate()
        if second.returncode != 0:
            raise Failure(complaint.strip())
    finally:
        if second.poll() is None:
            second.terminate()
            second.communicate()
    return {
        **report,
        "alone": alone,
        "beside": json.loads(printed),
        "slowdown": alone["delivered_per_s"] / max(report["delivered_per_s"], 0.1),
    }


def measure_restart(options, broker, one, durations):
    """Fills queues, kills the broker, and measures how long it takes until it lets somebody in; then empties them."""
    publish, drain = one.halves(durations)
    published = json.loads(output(bench(options, broker, one, publish)))
    broker.kill()
    broker.start(options)
    is_back = durable.await_login(broker.amqp_port, broker.spawned_at + START_TIME_MAX)
    ready = time.monotonic() - broker.spawned_at
    if not is_back:
        raise Failure(f"nobody could log in within {START_TIME_MAX} s after the restart")
    resident = resident_mib(broker.watched_pid())
    broker.await_ready()
    drained = json.loads(output(bench(options, broker, one, drain)))
    return {
        **published,
        "drain": drained["drain"],
        "ready_s": ready,
        "resident_at_ready_mib": resident,
    }


def resident_mib(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


def measure_all(options, brokers, tables, durations):
    """Every scenario on every broker in turn: {(title, broker): [report, ...]}."""
    results = {}
    for title, kind, scenarios in tables:
        for one in scenarios:
            for run in range(options.runs):
                for broker in brokers:
                    if broker.name in one.without:
                        continue
                    report = measure(options, broker, one, kind, durations)
                    results.setdefault((title, one.title, broker.name), []).append(report)
                    broker.version = report.get("broker", broker.version)
                    shown = report.get("failure") or headline(report)
                    print(f"{title}: {one.title}: run {run + 1}: {broker.name}: {shown}", flush=True)
                    if options.raw:
                        line = {"table": title, "title": one.title, "name": broker.name, **report}
                        with open(options.raw, "a", encoding="utf-8") as raw:
                            raw.write(json.dumps(line) + "\n")
    return results


def headline(report):
    if "ready_s" in report:
        return f"back after {report['ready_s']:.2f} s"
    for part in (report, report.get("publish") or {}):
        for name in ("delivered_per_s", "opened_per_s", "cycles_per_s", "confirmed_per_s"):
            if name in part:
                return f"{part[name]:,.0f} {name.removesuffix('_per_s')}/s"
    return "no figure"


# ----------------------------------------------------------------------------------------------- reporting


def median(reports, *path):
    """The median of a figure over the runs that have it; `None` without any."""
    figures = []
    for report in reports:
        value = report
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            figures.append(value)
    return statistics.median(figures) if figures else None


def number(value):
    """A figure as people read it: three significant digits or whole thousands."""
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


COLUMNS = {
    "flow": [
        ("messages/s", ("delivered_per_s",)),
        ("broker CPU µs/message", ("broker_cpu_us_per_message",)),
    ],
    "latency": [
        ("p50 µs", ("latency_us", "p50")),
        ("p99 µs", ("latency_us", "p99")),
        ("p99.9 µs", ("latency_us", "p999")),
        ("max µs", ("latency_us", "max")),
    ],
    "connections": [
        ("opened/s", ("opened_per_s",)),
        ("KiB RSS each", ("broker_resident_kib_per_connection",)),
        ("held", ("held",)),
    ],
    "churn": [("cycles/s", ("cycles_per_s",)), ("p99 µs", ("cycle_us", "p99"))],
    "confirmed": [
        ("messages/s", ("delivered_per_s",)),
        ("confirm p50 µs", ("confirm_us", "p50")),
        ("confirm p99 µs", ("confirm_us", "p99")),
        ("broker CPU µs/message", ("broker_cpu_us_per_message",)),
    ],
    "beside": [
        ("alone, messages/s", ("alone", "delivered_per_s")),
        ("beside, messages/s", ("delivered_per_s",)),
        ("slowdown, times", ("slowdown",)),
        ("the durable pair, messages/s", ("beside", "delivered_per_s")),
    ],
    "backlog": [
        ("published/s", ("publish", "confirmed_per_s")),
        ("CPU µs/message", ("publish", "broker", "cpu_us_per_message")),
        ("MiB RSS full", ("publish", "broker", "resident_mib")),
        ("MiB RSS max", ("publish", "broker", "resident_max_mib")),
        ("drained/s", ("drain", "delivered_per_s")),
        ("MiB RSS max, draining", ("drain", "broker", "resident_max_mib")),
        ("first delivery ms", ("drain", "first_delivery_ms")),
    ],
    "restart": [
        ("s until login", ("ready_s",)),
        ("MiB RSS then", ("resident_at_ready_mib",)),
        ("drained/s", ("drain", "delivered_per_s")),
        ("first delivery ms", ("drain", "first_delivery_ms")),
    ],
}


def cell(reports, path):
    """A figure, a dash for what was not measured, or that it failed."""
    failures = [report["failure"] for report in reports if "failure" in report]
    if failures:
        return "failed"
    return number(median(reports, *path))


def table(title, kind, scenarios, brokers, results):
    """A Markdown table: a row for each scenario, a group of columns for each broker."""
    columns = COLUMNS[kind]
    # A table that a broker has no part in has no columns of dashes for it.
    brokers = [broker for broker in brokers if any(broker.name not in one.without for one in scenarios)]
    heads = [f"{broker.version}: {name}" for broker in brokers for name, _ in columns]
    rows = [["", *heads], ["---", *["---:"] * len(heads)]]
    for one in scenarios:
        cells = [
            cell(results.get((title, one.title, broker.name), []), path)
            for broker in brokers
            for _, path in columns
        ]
        rows.append([one.title, *cells])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"### {title}", "", *lines])


def disk_table(disk):
    """What the disk does without a broker."""
    return "\n".join(
        [
            *("### The disk itself", ""),
            *("| | |", "| --- | ---: |"),
            f"| fdatasync/s, each behind 4 KiB over octets written before | {number(disk['fdatasync_per_s'])} |",
            f"| MB/s, 1 MiB writes at a file's end, each with its fdatasync | {number(disk['sequential_mb_per_s'])} |",
        ]
    )


def machine(directory):
    """What it ran on, without the names of anything."""

    def first(path, prefix):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith(prefix):
                    return line.split(":", 1)[1].strip()
        return "unknown"

    memory = first("/proc/meminfo", "MemTotal").split()[0]
    gib = f"{int(memory) / 1024 / 1024:.0f} GiB" if memory.isdigit() else "unknown"
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    try:
        filesystem = output(["stat", "-f", "-c", "%T", str(directory)]).strip()
    except Failure:
        filesystem = "unknown"
    return [
        f"- {len(os.sched_getaffinity(0))} cores, {first('/proc/cpuinfo', 'model name')}, {gib} of memory",
        f"- {platform.system()} {kernel}, data on {filesystem}",
    ]


def commands(tables, durations):
    lines = []
    for _, kind, scenarios in tables:
        for one in scenarios:
            for command in one.all_commands(kind, durations):
                words = shlex.join(["warren", "bench", *command])
                lines.append(f"{words} --url {one.protocol}://… --broker-pid … --json")
    return list(dict.fromkeys(lines))


def figures(options, brokers, tables, durations, results, load, directory, disk):
    """What stands between the markers."""
    parts = ["\n".join(["### Machine and method", "", *machine(directory), *method(options, load)])]
    parts += [table(title, kind, scenarios, brokers, results) for title, kind, scenarios in tables]
    parts += [disk_table(disk)] if disk else []
    parts.append(
        "\n".join(["### Commands", "", "```sh", options.shown, "# runs, for each broker:"]
                  + commands(tables, durations) + ["```"])
    )
    failures = sorted(
        {
            f"- {one} on {name}: {report['failure'].splitlines()[0]}"
            for (_, one, name), reports in results.items()
            for report in reports
            if "failure" in report
        }
    )
    if failures:
        parts.append("\n".join(["### Failures", "", *failures]))
    return "\n\n".join(parts)


def method(options, load):
    runs = f"medians of {options.runs} runs" if options.runs > 1 else "one run"
    return [
        f"- {time.strftime('%Y-%m-%d', time.gmtime())}, {runs}, brokers in turn; generator, brokers and "
        "their consumers share the cores",
        f"- load average before the start: {load:.2f}"
        + (" (**the machine was not idle**)" if load > 0.3 else ""),
    ]


def replace_between_markers(document, text):
    """The document with everything between the markers replaced."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise Failure(f"the markers are missing: {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


# ---------------------------------------------------------------------------------------------------- main


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short run and fewer connections: a check, no figures")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each scenario on each broker [default: 3]")
    parser.add_argument("--only", metavar="WORD", action="append", default=[],
                        help="only scenarios whose table or title contains WORD; may be repeated")
    parser.add_argument("--without", choices=sorted(BROKERS), action="append", default=[], help="leave a broker out")
    parser.add_argument("--warren", type=os.path.abspath, default=str(REPOSITORY / "target/release/warren"), help="the broker's binary")
    parser.add_argument("--bench", type=os.path.abspath, help="the load generator's binary [default: the broker's]")
    parser.add_argument("--rabbitmq", default="/usr/lib/rabbitmq/bin/rabbitmq-server", help="RabbitMQ's start script")
    parser.add_argument("--epmd", default=shutil.which("epmd") or "epmd", help="Erlang's port mapper")
    parser.add_argument("--data-dir", type=os.path.abspath, default=str(REPOSITORY / "target"),
                        help="where the temporary directory is made: the disk that persistence is measured on")
    parser.add_argument("--output", default=str(REPOSITORY / "BENCHMARKS.md"), help="the document to write into")
    parser.add_argument("--raw", metavar="FILE", help="append every report as a line of JSON")
    parser.add_argument("--print", action="store_true", dest="to_stdout", help="print the figures, write no document")
    options = parser.parse_args(words)
    options.runs = options.runs or (1 if options.quick else 3)
    options.bench = options.bench or options.warren
    shown = [word for word in ("--quick",) if options.quick] + [f"--runs={options.runs}"]
    shown += [f"--only={word}" for word in options.only] + [f"--without={word}" for word in options.without]
    options.shown = shlex.join(["conformance/bench/compare.py", *shown])
    return options


def chosen(tables, words):
    """The tables, with the scenarios that `words` name; all without any."""
    if not words:
        return tables
    kept = []
    for title, kind, scenarios in tables:
        some = [one for one in scenarios if any(word.lower() in f"{title} {one.title}".lower() for word in words)]
        if some:
            kept.append((title, kind, some))
    if not kept:
        raise Failure(f"no scenario contains {' or '.join(words)}")
    return kept


def durations_of(options):
    """Time arguments by kind of run."""
    length = "2s" if options.quick else "5s"
    flow = ("--duration", length, "--warmup", "1s")
    # A second generator is at work before the first one starts and after it has ended.
    longer = f"{int(length.removesuffix('s')) + BESIDE_MORE}s"
    return {
        "throughput": flow,
        "latency": flow,
        "churn": ("--duration", length),
        "beside": ("--duration", longer, "--warmup", "1s"),
    }


def allow_files():
    """Lets this process and its children open as many files as they may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def run(options):
    needed = {"warren": options.warren, "null": options.bench, "rabbitmq": options.rabbitmq}
    names = [name for name in BROKERS if name not in options.without]
    for name in names:
        if not os.access(needed[name], os.X_OK):
            raise Failure(f"{needed[name]} is not there; build or install it, or use --without {name}")
    connections = min(1_000 if options.quick else 10_000, allow_files() - FILES_BESIDES)
    backlog = 20_000 if options.quick else 1_000_000
    tables = chosen(sections(connections, backlog), options.only)
    durations = durations_of(options)
    load = os.getloadavg()[0]
    pathlib.Path(options.data_dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.data_dir) as temporary:
        brokers = []
        keeps = any(title.startswith("Durable") for title, _, _ in tables)
        disk = durable.disk_limits(temporary, 1 if options.quick else DISK_TIME) if keeps else None
        try:
            for name in names:
                directory = pathlib.Path(temporary) / name
                directory.mkdir()
                broker = BROKERS[name](name, directory)
                brokers.append(broker)
                broker.start(options)
                broker.await_ready()
            results = measure_all(options, brokers, tables, durations)
            text = figures(options, brokers, tables, durations, results, load, temporary, disk)
        finally:
            for broker in reversed(brokers):
                broker.stop()
    if options.to_stdout:
        print(text)
    else:
        path = pathlib.Path(options.output)
        path.write_text(replace_between_markers(path.read_text(encoding="utf-8"), text), encoding="utf-8")
        print(f"{path.name} written")
    failed = [report for reports in results.values() for report in reports if "failure" in report]
    return 1 if failed else 0


def main(words):
    # A terminal's Ctrl-C and a polite kill both end the children.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(arguments(words))
    except Failure as failure:
        print(f"compare.py: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
