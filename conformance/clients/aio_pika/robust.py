"""aio-pika: robust connection, confirms, returns, consumers as iterators, transactions, RPC patterns.

spec: rabbitmq.confirm.select
spec: amqp.basic.return.mandatory
spec: amqp.basic.reject
spec: amqp.tx.commit
spec: rabbitmq.queue.dead-letter
spec: rabbitmq.exchange.bind
"""

import asyncio

import aio_pika
from aio_pika.patterns import RPC

from conformance import PASSWORD, USER, WAIT_SECS, amqp, done, equal, name, true


async def take(queue, count):
    """Acknowledges and returns the bodies of the next `count` messages."""
    bodies = []
    async with queue.iterator(timeout=WAIT_SECS) as messages:
        async for message in messages:
            async with message.process():
                bodies.append(message.body)
            if len(bodies) == count:
                return bodies


async def main():
    host, port = amqp()
    connection = await aio_pika.connect_robust(
        host=host, port=port, login=USER, password=PASSWORD, timeout=WAIT_SECS
    )
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)

    # Publish with a confirm for each; a mandatory message without a queue raises.
    exchange = await channel.declare_exchange(
        name("aio"), aio_pika.ExchangeType.TOPIC, auto_delete=True
    )
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(exchange, "a.#")
    for number in range(50):
        await exchange.publish(
            aio_pika.Message(str(number).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT),
            routing_key=f"a.{number}",
        )
    equal(await take(queue, 50), [str(n).encode() for n in range(50)], "fifty messages in order")
    try:
        await exchange.publish(aio_pika.Message(b"lost"), routing_key="b", mandatory=True)
    except aio_pika.exceptions.DeliveryError as error:
        equal(error.message.delivery.reply_code, 312, "an unroutable message raises")
    else:
        raise AssertionError("an unroutable mandatory message was confirmed without a return")

    # Dead letters: a rejected message goes to the other queue with its history.
    dead = await channel.declare_queue(exclusive=True)
    source = await channel.declare_queue(
        exclusive=True,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name},
    )
    await channel.default_exchange.publish(aio_pika.Message(b"unwanted"), source.name)
    message = await source.get(timeout=WAIT_SECS)
    await message.reject(requeue=False)
    async with dead.iterator(timeout=WAIT_SECS) as messages:
        async for message in messages:
            await message.ack()
            break
    (death,) = message.headers["x-death"]
    equal(
        (death["reason"], death["queue"], death["count"]),
        ("rejected", source.name, 1),
        "x-death tells why, where and how often",
    )
    equal(message.headers["x-first-death-reason"], "rejected", "x-first-death-reason")

    # Exchange to exchange bindings
    front = await channel.declare_exchange(
        name("front"), aio_pika.ExchangeType.FANOUT, auto_delete=True
    )
    await exchange.bind(front, routing_key="")
    await front.publish(aio_pika.Message(b"through two exchanges"), routing_key="a.x")
    equal(await take(queue, 1), [b"through two exchanges"], "by way of a bound exchange")

    # Transactions need a channel without confirms.
    plain = await connection.channel(publisher_confirms=False)
    transaction = plain.transaction()
    await transaction.select()
    await plain.default_exchange.publish(aio_pika.Message(b"undone"), queue.name)
    await transaction.rollback()
    await plain.default_exchange.publish(aio_pika.Message(b"done"), queue.name)
    await transaction.commit()
    equal(await take(queue, 1), [b"done"], "only the committed message")

    # A consumer learns that its queue is gone.
    doomed = await channel.declare_queue(name("doomed"), auto_delete=False, robust=False)
    cancelled = asyncio.get_running_loop().create_future()
    raw = await channel.get_underlay_channel()
    tag = await doomed.consume(lambda _message: None)
    other = await connection.channel()
    await (await other.get_queue(doomed.name)).delete(if_unused=False, if_empty=False)

    async def gone():
        while tag in raw.consumers:
            await asyncio.sleep(0.01)
        cancelled.set_result(True)

    await asyncio.wait_for(gone(), WAIT_SECS)
    true(cancelled.result(), "the broker sent basic.cancel when the queue was deleted")

    # RPC over exclusive reply queues, with headers exchange for returned replies.
    async with await connection.channel() as rpc_channel:
        rpc = await RPC.create(rpc_channel)
        method = name("multiply")

        async def multiply(*, x, y):
            return x * y

        await rpc.register(method, multiply, auto_delete=True)
        answers = await asyncio.wait_for(
            asyncio.gather(*(rpc.call(method, {"x": n, "y": n}) for n in range(10))), WAIT_SECS
        )
        equal(answers, [n * n for n in range(10)], "ten concurrent calls")

    # A channel error leaves the connection, and the robust channel comes back.
    try:
        await channel.declare_queue(name("missing"), passive=True)
    except aio_pika.exceptions.ChannelNotFoundEntity:
        true(True, "a passive declare of a missing queue raises not found")
    else:
        raise AssertionError("a missing queue was found")
    await connection.close()


asyncio.run(asyncio.wait_for(main(), 50))
done()
