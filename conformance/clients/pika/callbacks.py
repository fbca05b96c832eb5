"""One conversation in callbacks, for both of pika's callback-driven connections.

Declares, binds, publishes twenty messages with confirms of which every fifth goes nowhere (mandatory, so it
comes back), consumes and acknowledges the rest, cancels and closes. The order of what happened is kept and
judged at the end.
"""

import pika

from conformance import equal, name, true

COUNT = 20


class Exchange:
    """The state of the conversation; its methods are the callbacks, in the order in which they are due."""

    def __init__(self):
        self.exchange = name("callbacks")
        self.queue = None
        self.channel = None
        self.happened = []
        self.confirmed = set()
        self.delivered = []
        self.cancelled = False
        self.close_reason = None
        self.failure = None

    def on_open_error(self, _connection, error):
        raise AssertionError(f"the connection did not open: {error!r}")

    def on_connection_open(self, connection):
        self.connection = connection
        connection.channel(on_open_callback=self.on_channel_open)

    def on_channel_open(self, channel):
        self.channel = channel
        channel.add_on_close_callback(self.on_channel_closed)
        channel.add_on_return_callback(self.on_return)
        channel.exchange_declare(
            exchange=self.exchange,
            exchange_type="direct",
            auto_delete=True,
            callback=lambda _ok: channel.queue_declare(
                queue="", exclusive=True, callback=self.on_queue_declared
            ),
        )

    def on_channel_closed(self, _channel, reason):
        self.channel_close_reason = reason

    def on_queue_declared(self, ok):
        self.queue = ok.method.queue
        self.channel.queue_bind(
            queue=self.queue,
            exchange=self.exchange,
            routing_key="here",
            callback=lambda _ok: self.channel.confirm_delivery(
                self.on_confirm, callback=self.on_confirm_selected
            ),
        )

    def on_confirm_selected(self, _ok):
        for number in range(1, COUNT + 1):
            self.channel.basic_publish(
                exchange=self.exchange,
                routing_key="here" if number % 5 else "nowhere",
                body=str(number),
                properties=pika.BasicProperties(message_id=str(number)),
                mandatory=True,
            )
        self.channel.basic_consume(
            queue=self.queue, on_message_callback=self.on_message, consumer_tag="reader"
        )

    def on_return(self, _channel, method, properties, body):
        self.happened.append(("return", int(properties.message_id), method.reply_code))
        if body != properties.message_id.encode():
            self.failure = f"the body {body!r} came back with message-id {properties.message_id!r}"

    def on_confirm(self, frame):
        if not isinstance(frame.method, pika.spec.Basic.Ack):
            self.failure = f"the broker refused a message: {frame.method!r}"
        tag = frame.method.delivery_tag
        first = min(set(range(1, tag + 1)) - self.confirmed) if frame.method.multiple else tag
        for number in range(first, tag + 1):
            self.confirmed.add(number)
            self.happened.append(("confirm", number, None))
        self.cancel_when_complete()

    def on_message(self, channel, method, _properties, body):
        self.delivered.append(int(body))
        channel.basic_ack(method.delivery_tag)
        self.cancel_when_complete()

    def cancel_when_complete(self):
        if len(self.delivered) == COUNT - COUNT // 5 and len(self.confirmed) == COUNT and not self.cancelled:
            self.cancelled = True
            self.channel.basic_cancel("reader", callback=lambda _ok: self.connection.close())

    def on_closed(self, reason):
        self.close_reason = reason

    def verdict(self):
        """Judges what happened; called when the connection has closed."""
        equal(self.failure, None, "failures noticed in a callback")
        true(
            isinstance(self.close_reason, pika.exceptions.ConnectionClosedByClient),
            f"the connection closed in good order: {self.close_reason!r}",
        )
        unroutable = [number for number in range(1, COUNT + 1) if number % 5 == 0]
        routable = [number for number in range(1, COUNT + 1) if number % 5]
        equal(self.delivered, routable, "the routable messages arrived in order, each once")
        equal(
            [(number, code) for what, number, code in self.happened if what == "return"],
            [(number, 312) for number in unroutable],
            "the unroutable ones were returned with NO_ROUTE",
        )
        equal(sorted(self.confirmed), list(range(1, COUNT + 1)), "every message was confirmed")
        for number in unroutable:
            true(
                self.happened.index(("return", number, 312))
                < self.happened.index(("confirm", number, None)),
                f"message {number} was returned before it was confirmed",
            )
