"""Publish with confirms and consume over pika's AsyncioConnection, on the loop of the standard library.

spec: rabbitmq.confirm.select
spec: amqp.basic.return.mandatory
spec: amqp.basic.return.before-confirm
"""

import asyncio

from pika.adapters.asyncio_connection import AsyncioConnection

from callbacks import Exchange
from conformance import done
from pika_session import parameters


async def main():
    closed = asyncio.get_running_loop().create_future()
    exchange = Exchange()
    AsyncioConnection(
        parameters(),
        on_open_callback=exchange.on_connection_open,
        on_open_error_callback=exchange.on_open_error,
        on_close_callback=lambda _connection, reason: (
            exchange.on_closed(reason),
            closed.set_result(None),
        ),
    )
    await closed
    exchange.verdict()


asyncio.run(main())
done()
