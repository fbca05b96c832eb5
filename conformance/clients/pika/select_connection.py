"""Publish with confirms and consume over pika's SelectConnection: everything by callback, on pika's own
event loop.

spec: rabbitmq.confirm.select
spec: amqp.basic.return.mandatory
spec: amqp.basic.return.before-confirm
"""

import pika

from callbacks import Exchange
from conformance import done
from pika_session import parameters

exchange = Exchange()
connection = pika.SelectConnection(
    parameters=parameters(),
    on_open_callback=exchange.on_connection_open,
    on_open_error_callback=exchange.on_open_error,
    on_close_callback=lambda connection, reason: (
        exchange.on_closed(reason),
        connection.ioloop.stop(),
    ),
)
connection.ioloop.start()
exchange.verdict()
done()
