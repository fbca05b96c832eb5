"""Transactions and receipts with stomp.py.

spec: stomp-1.0.transaction.commit
spec: stomp-1.0.transaction.abort
spec: stomp-1.0.transaction.ack
spec: stomp.transaction.unknown
spec: rabbitmq.stomp.transaction.receipt-after-commit
"""

from conformance import done, equal, name, say
from stomp_session import Session

for version in ("1.0", "1.1", "1.2"):
    say(f"--- STOMP {version}")
    queue = f"/queue/{name('transactions')}"
    session = Session(version)
    reader = Session(version)
    reader.subscribe(queue, "r", ack="client-individual")

    transaction = session.connection.begin(headers={"receipt": "begun"})
    session.receipt("begun")
    for number in range(3):
        session.connection.send(
            queue, str(number), headers={"transaction": transaction, "receipt": f"sent-{number}"}
        )
    session.quiet("no receipt of a transactional SEND before COMMIT")
    reader.quiet("no message before COMMIT")
    session.connection.commit(transaction, headers={"receipt": "committed"})
    receipts = {session.expect("RECEIPT").headers["receipt-id"] for _ in range(4)}
    equal(receipts, {"committed", "sent-0", "sent-1", "sent-2"}, "the receipts after COMMIT")
    messages = [reader.expect("MESSAGE") for _ in range(3)]
    equal([message.body for message in messages], [b"0", b"1", b"2"], "in order")

    transaction = session.connection.begin(headers={"receipt": "begun"})
    session.receipt("begun")
    session.connection.send(queue, "never", headers={"transaction": transaction})
    session.connection.abort(transaction, headers={"receipt": "aborted"})
    session.receipt("aborted")
    reader.quiet("no message after ABORT")

    # Acknowledgements in a transaction: aborted, they leave the message outstanding; committed, they hold.
    transaction = reader.connection.begin(headers={"receipt": "begun"})
    reader.receipt("begun")
    reader.ack(messages[0], transaction=transaction)
    reader.connection.abort(transaction, headers={"receipt": "aborted"})
    reader.receipt("aborted")
    transaction = reader.connection.begin(headers={"receipt": "begun"})
    reader.receipt("begun")
    reader.ack(messages[1], transaction=transaction)
    reader.connection.commit(transaction, headers={"receipt": "committed"})
    reader.receipt("committed")
    reader.close()
    reader = Session(version)
    reader.subscribe(queue, "r2", receipt=False)
    left = [reader.expect("MESSAGE").body for _ in range(2)]
    equal(left, [b"0", b"2"], "the committed acknowledgement counted, the aborted one did not")
    reader.quiet("the queue is empty")

    # A transaction that was never begun
    session.connection.commit("no-such-transaction")
    error = session.expect("ERROR")
    equal(error.headers["message"], "Bad transaction", "the error")
    reader.close()
done()
