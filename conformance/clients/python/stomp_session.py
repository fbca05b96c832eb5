"""What programs with stomp.py share: a connection whose frames can be waited for, one after the other."""

import queue

import stomp

from conformance import PASSWORD, QUIET_SECS, USER, WAIT_SECS, say, true
import conformance

VERSIONS = {
    "1.0": stomp.Connection10,
    "1.1": stomp.Connection11,
    "1.2": stomp.Connection12,
}


class Session(stomp.ConnectionListener):
    """A logged-in connection of one version. Every frame of the broker is kept until `expect` takes it."""

    def __init__(self, version="1.2", address=None, tls=None, connect_headers=None, **options):
        self.version = version
        self._frames = queue.Queue()
        address = address or conformance.stomp()
        if version != "1.0":
            options.setdefault("vhost", "/")
        self.connection = VERSIONS[version]([address], auto_decode=False, **options)
        if tls:
            self.connection.set_ssl(for_hosts=[address], **tls)
        self.connection.set_listener("session", self)
        self.connection.connect(USER, PASSWORD, wait=True, headers=connect_headers)
        self.connected = self.expect("CONNECTED")

    def _keep(self, frame):
        say(f"     < {frame.cmd} {frame.headers} {frame.body!r}"[:400])
        self._frames.put(frame)

    on_connected = on_message = on_receipt = on_error = _keep

    def on_disconnected(self):
        self._frames.put(None)

    def on_heartbeat_timeout(self):
        say("     heart-beat timeout")

    def expect(self, command):
        """The next frame, which must be `command`."""
        try:
            frame = self._frames.get(timeout=WAIT_SECS)
        except queue.Empty:
            raise AssertionError(f"no {command} came within {WAIT_SECS} s") from None
        if frame is None:
            raise AssertionError(f"the connection closed where {command} was due")
        if frame.cmd != command:
            raise AssertionError(f"expected {command}, got {frame.cmd} {frame.headers} {frame.body!r}")
        return frame

    def expect_closed(self, what):
        """The broker closes the connection."""
        try:
            frame = self._frames.get(timeout=WAIT_SECS)
        except queue.Empty:
            raise AssertionError(f"still open after {WAIT_SECS} s: {what}") from None
        true(frame is None, f"the broker closed: {what}")

    def expect_each(self, *commands):
        """The next frames, which must be `commands` in any order; returned in the order asked for."""
        frames = [self.take() for _ in commands]
        found = []
        for command in commands:
            frame = next((frame for frame in frames if frame.cmd == command), None)
            if frame is None:
                raise AssertionError(f"no {command} among {[frame.cmd for frame in frames]}")
            frames.remove(frame)
            found.append(frame)
        return found

    def take(self):
        """The next frame, whatever it is."""
        try:
            frame = self._frames.get(timeout=WAIT_SECS)
        except queue.Empty:
            raise AssertionError(f"no frame came within {WAIT_SECS} s") from None
        if frame is None:
            raise AssertionError("the connection closed where a frame was due")
        return frame

    def quiet(self, what):
        """Nothing more comes."""
        try:
            frame = self._frames.get(timeout=QUIET_SECS)
        except queue.Empty:
            true(True, f"nothing more comes: {what}")
            return
        raise AssertionError(f"{what}: unexpected {frame and frame.cmd} {frame and frame.headers}")

    def receipt(self, receipt_id):
        """The next frame is the RECEIPT with this id."""
        frame = self.expect("RECEIPT")
        if frame.headers["receipt-id"] != receipt_id:
            raise AssertionError(f"expected receipt {receipt_id}, got {frame.headers}")
        return frame

    def subscribe(self, destination, id, ack="auto", headers=None, receipt=True):
        """SUBSCRIBE, waiting for its receipt so that a later SEND finds the subscription."""
        headers = dict(headers or {})
        if receipt:
            headers["receipt"] = f"subscribe-{id}"
        self.connection.subscribe(destination, id=id, ack=ack, headers=headers)
        if receipt:
            self.receipt(f"subscribe-{id}")

    def send(self, destination, body, **headers):
        """SEND; underscores in the names of headers stand for hyphens."""
        self.connection.send(
            destination, body, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )

    def ack(self, message, **options):
        """ACK in the form of the connection's version."""
        self.connection.ack(*self._ack_arguments(message), **options)

    def nack(self, message, **options):
        """NACK in the form of the connection's version."""
        self.connection.nack(*self._ack_arguments(message), **options)

    def _ack_arguments(self, message):
        if self.version == "1.2":
            return [message.headers["ack"]]
        if self.version == "1.1":
            return [message.headers["message-id"], message.headers["subscription"]]
        return [message.headers["message-id"]]

    def close(self):
        """DISCONNECT with a receipt, which must come. stomp.py may report the end of the connection first."""
        self.connection.disconnect(receipt="bye")
        last = [self._frames.get(timeout=WAIT_SECS)]
        if last[0] is None:
            last.append(self._frames.get(timeout=WAIT_SECS))
        receipts = [frame.headers["receipt-id"] for frame in last if frame is not None]
        if receipts != ["bye"]:
            raise AssertionError(f"expected the receipt of DISCONNECT, got {last}")
