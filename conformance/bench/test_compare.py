"""What compare.py computes and writes, without any broker: python3 -m unittest conformance/bench/test_compare.py"""

import os
import pathlib
import sys
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import compare  # noqa: E402


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


class Processes(unittest.TestCase):
    def test_this_process_is_a_child_of_its_parent(self):
        self.assertIn(os.getpid(), compare.children_of(os.getppid()))

    def test_free_ports_are_distinct_and_nobody_listens(self):
        ports = compare.free_ports(3)
        self.assertEqual(len(set(ports)), 3)
        self.assertFalse(any(compare.is_listening(port) for port in ports))


if __name__ == "__main__":
    unittest.main()
