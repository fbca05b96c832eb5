"""Errors: what the broker answers, and whether the connection goes on, with stomp.py.

spec: stomp.error.unknown-destination
spec: stomp.error.receipt-id
spec: stomp.send.missing-destination
spec: rabbitmq.stomp.subscribe.duplicate-id
spec: rabbitmq.stomp.exchange.missing
spec: stomp.connect.bad-credentials
spec: stomp.subscribe.bad-ack
spec: rabbitmq.stomp.server-cancel
"""

import stomp

import pika_session
from conformance import done, equal, is_foreign, name, true
import conformance
from stomp_session import Session

session = Session("1.2")


def error_after(action, message, body=None):
    action()
    frame = session.expect("ERROR")
    equal(frame.headers["message"], message, "the short message")
    equal(frame.headers["content-type"], "text/plain", "content-type")
    true(frame.body, f"an explanation: {frame.body!r}")
    if body is not None:
        equal(frame.body.decode().strip(), body, "the body")
    return frame


frame = error_after(
    lambda: session.send("/foo/bar", "x", receipt="never"),
    "Unknown destination",
)
true("'/foo/bar' is not a valid destination" in frame.body.decode(), "the body names it")
if not is_foreign():
    equal(frame.headers["receipt-id"], "never", "the ERROR says which frame caused it")
error_after(
    lambda: session.connection.send_frame("SEND", {}, "x"),
    "Missing destination",
    "\"SEND\" must include a 'destination' header",
)
error_after(
    lambda: session.connection.send_frame(
        "SUBSCRIBE", {"destination": "/queue/x", "id": "bad", "ack": "sometimes"}
    ),
    "Processing error",
)
error_after(
    lambda: session.connection.unsubscribe(id="unknown"), "No subscription found"
)
error_after(
    lambda: session.connection.send_frame("FROBNICATE", {"x": "y"}),
    "Bad command",
    'Could not interpret command "FROBNICATE"',
)
error_after(
    lambda: session.send("/queue/x", "x", message_id="mine"),
    "Invalid header",
    "'message-id' is not allowed on 'SEND'.",
)

# After all that the connection is still good.
queue = name("errors")
session.subscribe(f"/queue/{queue}", "s")
session.send(f"/queue/{queue}", "still here")
equal(session.expect("MESSAGE").body, b"still here", "the connection goes on after these errors")

# The queue under a subscription is deleted from the other side.
amqp = pika_session.connect()
amqp.channel().queue_delete(queue)
frame = session.expect("ERROR")
equal(frame.headers["message"], "Server cancelled subscription", "the short message")
equal(frame.headers["subscription"], "s", "which subscription")
session.send("/topic/" + name("x"), "x", receipt="open")
session.receipt("open")
amqp.close()

# Errors of the broker proper end the connection.
session.subscribe("/topic/" + name("x"), "twice")
error_after(
    lambda: session.connection.subscribe("/topic/" + name("x"), id="twice"),
    "Duplicated subscription identifier",
)
session.expect_closed("after a duplicated subscription")

session = Session("1.2")
frame = error_after(lambda: session.send(f"/exchange/{name('missing')}/k", "x"), "not_found")
true(frame.body.decode().startswith("NOT_FOUND - no exchange"), "the AMQP text")
session.expect_closed("after an AMQP exception")

# A wrong password
rejected = []


class Rejected(stomp.ConnectionListener):
    def on_error(self, frame):
        rejected.append(frame)


connection = stomp.Connection12([conformance.stomp()], vhost="/")
connection.set_listener("", Rejected())
conformance.raises(
    stomp.exception.ConnectFailedException,
    lambda: connection.connect("guest", "wrong", wait=True),
    "a wrong password",
)
equal(rejected[0].headers["message"], "Bad CONNECT", "the short message")
equal(rejected[0].body.strip(), "Access refused for user 'guest'", "the body")
done()
