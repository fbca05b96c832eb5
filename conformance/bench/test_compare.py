"""What compare.py computes and writes, without any broker: python3 -m unittest conformance/bench/test_compare.py"""

import os
import pathlib
import socket
import struct
import sys
import tempfile
import threading
import time
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import compare  # noqa: E402
import durable  # noqa: E402


class Figures(unittest.TestCase):
    def test_a_median_takes_the_runs_that_have_the_figure(self):
        reports = [{"latency_us": {"p50": 3}}, {"latency_us": None}, {"latency_us": {"p50": 1}}, {"latency_us": {"p50": 2}}]
        self.assertEqual(compare.median(reports, "latency_us", "p50"), 2)
        self.assertIsNone(compare.median(reports, "latency_us", "p99"))
        self.assertIsNone(compare.median([], "delivered_per_s"))

    def test_numbers_are_short(self):
        cases = [(None, "–"), (1234567.8, "1,234,568"), (999.4, "999"), (0.12345, "0.123"), (0, "0")]
        for value, text in cases:
            self.assertEqual(compare.number(value), text)

    def test_a_failed_run_is_not_hidden_by_others(self):
        reports = [{"delivered_per_s": 5.0}, {"failure": "refused"}]
        self.assertEqual(compare.cell(reports, ("delivered_per_s",)), "failed")

    def test_a_table_has_a_cell_for_each_broker_and_column(self):
        brokers = [types.SimpleNamespace(name=name, version=name.title()) for name in ("warren", "null")]
        one = compare.scenario("one pair", "throughput --size 16")
        results = {("T", "one pair", "warren"): [{"delivered_per_s": 2000.0, "broker_cpu_us_per_message": 0.5}]}
        text = compare.table("T", "flow", [one], brokers, results)
        self.assertIn("| one pair | 2,000 | 0.5 | – | – |", text)
        self.assertEqual(len({line.count("|") for line in text.splitlines() if line.startswith("|")}), 1)

    def test_only_the_text_between_the_markers_changes(self):
        document = f"before\n{compare.BEGIN}\nold\n{compare.END}\nafter\n"
        changed = compare.replace_between_markers(document, "new")
        self.assertEqual(changed, f"before\n{compare.BEGIN}\n\nnew\n\n{compare.END}\nafter\n")
        with self.assertRaises(compare.Failure):
            compare.replace_between_markers("no markers", "new")

    def test_the_document_of_the_repository_has_the_markers(self):
        document = (compare.REPOSITORY / "BENCHMARKS.md").read_text(encoding="utf-8")
        self.assertIn("figures", compare.replace_between_markers(document, "figures"))


class Scenarios(unittest.TestCase):
    def test_titles_are_distinct_and_every_kind_has_columns(self):
        seen = set()
        for title, kind, scenarios in compare.sections(100):
            self.assertIn(kind, compare.COLUMNS)
            for one in scenarios:
                self.assertNotIn((title, one.title), seen)
                seen.add((title, one.title))

    def test_words_choose_scenarios(self):
        tables = compare.chosen(compare.sections(100), ["stomp"])
        self.assertTrue(all("STOMP" in one.title for _, _, scenarios in tables for one in scenarios))
        with self.assertRaises(compare.Failure):
            compare.chosen(compare.sections(100), ["no such thing"])

    def test_the_time_arguments_follow_the_kind_of_run(self):
        options = compare.arguments(["--quick"])
        durations = compare.durations_of(options)
        command = compare.scenario("t", "throughput --size 1").command(durations)
        self.assertEqual(command, ["throughput", "--duration", "2s", "--warmup", "1s", "--size", "1"])
        self.assertEqual(compare.scenario("t", "connections").command(durations), ["connections"])


    def test_a_second_generator_is_measured_longer_and_its_command_is_shown(self):
        durations = compare.durations_of(compare.arguments([]))
        tables = compare.chosen(compare.sections(100), ["beside"])
        (one,) = tables[0][2]
        self.assertEqual(one.command_beside(durations)[:3], ["throughput", "--duration", "10s"])
        self.assertEqual(len(compare.commands(tables, durations)), 2)

    def test_a_restart_is_between_two_commands(self):
        durations = compare.durations_of(compare.arguments([]))
        shown = compare.commands(compare.chosen(compare.sections(100, 7), ["restart"]), durations)
        self.assertEqual(["publish" in line for line in shown], [True, False])
        self.assertTrue(all("--messages 7 " in line and "--queue-prefix restart" in line for line in shown))

    def test_everything_durable_can_be_chosen_alone(self):
        titles = [title for title, _, _ in compare.chosen(compare.sections(100), ["Durable"])]
        self.assertEqual(titles, ["Durable", "Durable beside transient", "Durable backlog", "Durable restart"])


class Disk(unittest.TestCase):
    def test_limits_are_measured_and_leave_nothing(self):
        with tempfile.TemporaryDirectory() as directory:
            disk = durable.disk_limits(directory, 0.05)
            self.assertEqual(os.listdir(directory), [])
        self.assertTrue(all(figure > 0 for figure in disk.values()), disk)
        self.assertEqual(compare.disk_table({"fdatasync_per_s": 1234.0, "sequential_mb_per_s": 9.5}).count("\n|"), 4)


class Login(unittest.TestCase):
    def answer(self, *payloads):
        """A broker that answers each request with one payload and then closes."""
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            with listener, listener.accept()[0] as peer:
                for payload in payloads:
                    peer.recv(4096)
                    peer.sendall(struct.pack(">BHL", 1, 0, len(payload)) + payload + b"\xce")
                peer.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        return listener.getsockname()[1]

    def test_a_login_ends_with_an_open_virtual_host(self):
        start, tune, opened = b"\0\x0a\0\x0a", b"\0\x0a\0\x1e" + bytes(8), b"\0\x0a\0\x29\0"
        self.assertTrue(durable.logs_in(self.answer(start, tune, opened), 5))
        close = b"\0\x0a\0\x32\x02\x12\0\0\0\0\0"
        self.assertFalse(durable.logs_in(self.answer(start, tune, close), 5))
        with self.assertRaises(ConnectionError):
            durable.logs_in(self.answer(start), 5)

    def test_nobody_there_is_waited_for_until_the_deadline(self):
        (port,) = compare.free_ports(1)
        self.assertFalse(durable.await_login(port, time.monotonic() + 0.05))


class Processes(unittest.TestCase):
    def test_this_process_is_a_child_of_its_parent(self):
        self.assertIn(os.getpid(), compare.children_of(os.getppid()))

    def test_free_ports_are_distinct_and_nobody_listens(self):
        ports = compare.free_ports(3)
        self.assertEqual(len(set(ports)), 3)
        self.assertFalse(any(compare.is_listening(port) for port in ports))


if __name__ == "__main__":
    unittest.main()
