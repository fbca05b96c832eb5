"""Scrapes /metrics and parses it with the parser of prometheus_client; then traffic must show in it.

spec: prometheus.format
spec: prometheus.overview-metrics
spec: prometheus.counters
"""

import urllib.request

import pika
import pika_session
from prometheus_client.parser import text_string_to_metric_families

from conformance import WAIT_SECS, done, equal, is_foreign, metrics, name, say, true, wait_until
from stomp_session import Session

host, port = metrics()


def scrape():
    """Metric families by name, and samples by (name, labels) from one scrape."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=WAIT_SECS) as response:
        equal_quietly(response.status, 200)
        kind = response.headers["Content-Type"]
        if not kind.startswith("text/plain"):
            raise AssertionError(f"the content type is {kind!r}")
        text = response.read().decode("utf-8")
    families = {}
    samples = {}
    for family in text_string_to_metric_families(text):
        if family.name in families:
            raise AssertionError(f"{family.name} appears in two places")
        families[family.name] = family
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            if key in samples:
                raise AssertionError(f"{sample} appears twice")
            samples[key] = sample.value
    return families, samples


def equal_quietly(actual, expected):
    if actual != expected:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")


def total(samples, metric, **labels):
    """The sum of a metric's samples that carry `labels`."""
    return sum(
        value
        for (sample, its_labels), value in samples.items()
        if sample == metric and set(labels.items()) <= its_labels
    )


families, samples = scrape()
true(len(families) > 0, f"{len(families)} families, {len(samples)} samples")

# What the RabbitMQ-Overview dashboard and the usual alert rules ask for.
wanted = {
    "rabbitmq_identity_info",
    "rabbitmq_build_info",
    "rabbitmq_erlang_uptime_seconds",
    "rabbitmq_connections",
    "rabbitmq_channels",
    "rabbitmq_consumers",
    "rabbitmq_queues",
    "rabbitmq_connections_opened_total",
    "rabbitmq_connections_closed_total",
    "rabbitmq_channels_opened_total",
    "rabbitmq_channels_closed_total",
    "rabbitmq_queues_declared_total",
    "rabbitmq_queues_created_total",
    "rabbitmq_queues_deleted_total",
    "rabbitmq_queue_messages_ready",
    "rabbitmq_queue_messages_unacked",
    "rabbitmq_queue_messages",
    "rabbitmq_queue_consumers",
    "rabbitmq_global_messages_received_total",
    "rabbitmq_global_messages_received_confirm_total",
    "rabbitmq_global_messages_confirmed_total",
    "rabbitmq_global_messages_routed_total",
    "rabbitmq_global_messages_unroutable_dropped_total",
    "rabbitmq_global_messages_unroutable_returned_total",
    "rabbitmq_global_publishers",
    "rabbitmq_global_consumers",
    "rabbitmq_global_messages_delivered_total",
    "rabbitmq_global_messages_delivered_consume_auto_ack_total",
    "rabbitmq_global_messages_delivered_consume_manual_ack_total",
    "rabbitmq_global_messages_delivered_get_auto_ack_total",
    "rabbitmq_global_messages_delivered_get_manual_ack_total",
    "rabbitmq_global_messages_get_empty_total",
    "rabbitmq_global_messages_redelivered_total",
    "rabbitmq_global_messages_acknowledged_total",
    "rabbitmq_process_open_fds",
    "rabbitmq_process_max_fds",
    "rabbitmq_process_resident_memory_bytes",
    "rabbitmq_resident_memory_limit_bytes",
    "rabbitmq_disk_space_available_bytes",
    "rabbitmq_disk_space_available_limit_bytes",
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_alarms_free_disk_space_watermark",
}
if not is_foreign():
    # Newer than the RabbitMQ that serves as the oracle.
    wanted |= {"rabbitmq_message_size_bytes_bucket"}
    wanted |= {
        f"rabbitmq_global_messages_dead_lettered_{reason}_total"
        for reason in ("confirmed", "delivery_limit", "expired", "maxlen", "rejected")
    }

# Traffic, so that every series exists and its change can be seen.
AMQP = {"protocol": "amqp091"}
connection = pika_session.connect()
channel = connection.channel()
queue = channel.queue_declare("", exclusive=True).method.queue
wait_until(
    lambda: total(scrape()[1], "rabbitmq_connections") >= 1, "the gauge of connections shows one"
)
_, before = scrape()
channel.confirm_delivery()
for number in range(10):
    channel.basic_publish("", queue, b"x" * 50)
try:
    channel.basic_publish("", name("nowhere"), b"returned", mandatory=True)
except pika.exceptions.UnroutableError:
    say("ok   a mandatory message came back")
channel.basic_publish("", name("nowhere"), b"dropped")
received = []
for method, _, _ in channel.consume(queue, auto_ack=False, inactivity_timeout=WAIT_SECS):
    channel.basic_ack(method.delivery_tag)
    received.append(method.delivery_tag)
    if len(received) == 5:
        break
channel.cancel()
equal(channel.basic_get(queue, auto_ack=True)[0] is not None, True, "one message got")

expected = {
    ("rabbitmq_global_messages_received_total", 12, tuple(AMQP.items())),
    ("rabbitmq_global_messages_received_confirm_total", 12, tuple(AMQP.items())),
    ("rabbitmq_global_messages_confirmed_total", 12, tuple(AMQP.items())),
    ("rabbitmq_global_messages_routed_total", 10, tuple(AMQP.items())),
    ("rabbitmq_global_messages_unroutable_returned_total", 1, tuple(AMQP.items())),
    ("rabbitmq_global_messages_unroutable_dropped_total", 1, tuple(AMQP.items())),
    ("rabbitmq_global_messages_acknowledged_total", 5, tuple(AMQP.items())),
    ("rabbitmq_global_messages_delivered_get_auto_ack_total", 1, tuple(AMQP.items())),
}


def moved():
    _, after = scrape()
    return all(
        total(after, metric, **dict(labels)) - total(before, metric, **dict(labels)) >= least
        for metric, least, labels in expected
    )


try:
    wait_until(moved, "the counters have moved by what was published and taken")
except AssertionError:
    _, after = scrape()
    for metric, least, labels in sorted(expected):
        gain = total(after, metric, **dict(labels)) - total(before, metric, **dict(labels))
        say(f"     {metric}: gained {gain}, expected at least {least}")
    raise

families, after = scrape()
missing = sorted(wanted - {sample for sample, _ in after})
equal(missing, [], "metrics that the dashboard asks for and that are missing")

# Counters never fall, not even when the connection that they counted for is gone.
connection.close()
wait_until(
    lambda: total(scrape()[1], "rabbitmq_connections_closed_total")
    > total(after, "rabbitmq_connections_closed_total"),
    "the connection was counted as closed",
)
families, later = scrape()
counters = {f"{family}_total" for family, kind in families.items() if kind.type == "counter"}
fallen = [
    key for key, value in after.items() if key[0] in counters and later.get(key, 0) < value
]
# (The foreign broker sums some of its counters over the connections that live.)
if not is_foreign():
    equal(fallen, [], "counters that fell")

# STOMP counts, too.
if not is_foreign():
    session = Session("1.2")
    session.send(f"/topic/{name('metrics')}", "x", receipt="sent")
    session.receipt("sent")
    wait_until(
        lambda: total(
            scrape()[1], "rabbitmq_global_messages_received_total", protocol="STOMP 1.2"
        )
        >= 1,
        "a SEND was counted for STOMP 1.2",
    )
    session.close()
    sizes = sorted(
        dict(labels)["le"]
        for sample, labels in scrape()[1]
        if sample == "rabbitmq_message_size_bytes_bucket"
        and dict(labels).get("protocol") == "amqp091"
    )
    true("100.0" in sizes and "1000.0" in sizes, f"buckets are written as the dashboard asks: {sizes}")
done()
