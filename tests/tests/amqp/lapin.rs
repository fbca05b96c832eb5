//! A foreign client from end to end: lapin, whose reading of the protocol is not ours.

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use warren_tests::{DEADLINE, TestBroker, eventually};

/// Does not wait longer than a test may.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("lapin waits for something that does not come")
}

async fn connection(broker: &TestBroker) -> Connection {
    let uri = format!("amqp://guest:guest@{}/%2f", broker.amqp_address());
    soon(Connection::connect(&uri, ConnectionProperties::default())).await.unwrap()
}

async fn channel(broker: &TestBroker) -> (Connection, Channel) {
    let connection = connection(broker).await;
    let channel = soon(connection.create_channel()).await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, name: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions::default();
    soon(channel.queue_declare(name.into(), options, arguments)).await.unwrap();
}

async fn publish_with(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Confirmation {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
    soon(async { published.await.unwrap().await.unwrap() }).await
}

async fn publish(channel: &Channel, key: &str, body: &str) -> Confirmation {
    publish_with(channel, "", key, body.as_bytes(), BasicProperties::default()).await
}

async fn confirming(channel: &Channel) {
    soon(channel.confirm_select(ConfirmSelectOptions::default())).await.unwrap();
}

async fn consume(channel: &Channel, queue: &str, options: BasicConsumeOptions) -> Consumer {
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    soon(consumer).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    soon(consumer.next()).await.expect("the consumer was cancelled").unwrap()
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn code(error: &lapin::Error) -> u16 {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_id(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_persistent_message_is_consumed() {
    let broker = TestBroker::start().await;
    let (connection, channel) = channel(&broker).await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    soon(channel.queue_declare("q".into(), options, FieldTable::default())).await.unwrap();
    confirming(&channel).await;
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let confirmation = publish_with(&channel, "", "q", b"hello", persistent).await;
    assert_eq!(confirmation, Confirmation::Ack(None));
    let mut consumer = consume(&channel, "q", BasicConsumeOptions::default()).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.data, b"hello");
    soon(delivery.ack(BasicAckOptions::default())).await.unwrap();
    soon(connection.close(200, "done".into())).await.unwrap();
    // Acknowledged before the close, so that nothing came back.
    let mut peer = broker.amqp().await;
    assert_eq!(peer.drain(1, "q").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unroutable_message_comes_back_with_its_confirm() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    confirming(&channel).await;
    let returned = publish(&channel, "nobody", "back").await.take_message().unwrap();
    assert_eq!(returned.delivery.data, b"back");
    assert_eq!(returned.reply_code, 312);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_queue_nacks() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    declare(&channel, "q", arguments).await;
    confirming(&channel).await;
    assert!(publish(&channel, "q", "a").await.is_ack());
    assert!(publish(&channel, "q", "b").await.is_nack());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_confirms_in_flight_all_arrive() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q", FieldTable::default()).await;
    confirming(&channel).await;
    let mut waiting = Vec::new();
    for number in 0..2000_u32 {
        let options = BasicPublishOptions::default();
        let body = number.to_be_bytes();
        let published = channel.basic_publish(
            "".into(),
            "q".into(),
            options,
            &body,
            BasicProperties::default(),
        );
        waiting.push(soon(published).await.unwrap());
    }
    for confirm in waiting {
        assert!(soon(confirm).await.unwrap().is_ack());
    }
    let mut consumer =
        consume(&channel, "q", BasicConsumeOptions { no_ack: true, ..Default::default() }).await;
    for number in 0..2000_u32 {
        assert_eq!(next(&mut consumer).await.data, number.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_errors_have_their_codes_and_spare_the_connection() {
    let broker = TestBroker::start().await;
    let connection = connection(&broker).await;
    let channel = soon(connection.create_channel()).await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let error = soon(channel.queue_declare("missing".into(), passive, FieldTable::default())).await;
    assert_eq!(code(&error.unwrap_err()), 404);
    let channel = soon(connection.create_channel()).await.unwrap();
    declare(&channel, "q", FieldTable::default()).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let error = soon(channel.queue_declare("q".into(), durable, FieldTable::default())).await;
    assert_eq!(code(&error.unwrap_err()), 406);
    let channel = soon(connection.create_channel()).await.unwrap();
    declare(&channel, "q", FieldTable::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_message_shows_its_death() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "dead", FieldTable::default()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text("dead"));
    declare(&channel, "q", arguments).await;
    publish(&channel, "q", "x").await;
    let got = soon(channel.basic_get("q".into(), BasicGetOptions::default())).await.unwrap();
    let nack = BasicNackOptions { requeue: false, ..BasicNackOptions::default() };
    soon(got.unwrap().nack(nack)).await.unwrap();
    let mut consumer = consume(&channel, "dead", BasicConsumeOptions::default()).await;
    let delivery = next(&mut consumer).await;
    let headers = delivery.properties.headers().as_ref().unwrap().inner();
    let Some(AMQPValue::FieldArray(deaths)) = headers.get("x-death") else { panic!("{headers:?}") };
    let [AMQPValue::FieldTable(death)] = deaths.as_slice() else { panic!("{deaths:?}") };
    assert_eq!(death.inner().get("queue"), Some(&text("q")));
    assert_eq!(death.inner().get("reason"), Some(&text("rejected")));
    assert_eq!(death.inner().get("count"), Some(&AMQPValue::LongLongInt(1)));
    assert!(matches!(death.inner().get("time"), Some(AMQPValue::Timestamp(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_commit_and_roll_back() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q", FieldTable::default()).await;
    soon(channel.tx_select()).await.unwrap();
    publish(&channel, "q", "rolled back").await;
    soon(channel.tx_rollback()).await.unwrap();
    publish(&channel, "q", "committed").await;
    soon(channel.tx_commit()).await.unwrap();
    let mut peer = broker.amqp().await;
    assert_eq!(peer.drain(1, "q").await, ["committed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_are_bound_to_exchanges() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    let nothing = FieldTable::default;
    for (name, kind) in [("outer", ExchangeKind::Topic), ("inner", ExchangeKind::Fanout)] {
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        soon(channel.exchange_declare(name.into(), kind, options, nothing())).await.unwrap();
    }
    let options = ExchangeBindOptions::default();
    let bound = channel.exchange_bind(
        "inner".into(),
        "outer".into(),
        "*.urgent".into(),
        options,
        nothing(),
    );
    soon(bound).await.unwrap();
    declare(&channel, "q", nothing()).await;
    let options = QueueBindOptions::default();
    soon(channel.queue_bind("q".into(), "inner".into(), "".into(), options, nothing()))
        .await
        .unwrap();
    let plain = BasicProperties::default;
    publish_with(&channel, "outer", "disk.urgent", b"routed", plain()).await;
    publish_with(&channel, "outer", "disk.slow", b"not routed", plain()).await;
    let mut peer = broker.amqp().await;
    eventually("it is there", async || peer.counts(1, "q").await.0 == 1).await;
    assert_eq!(peer.drain(1, "q").await, ["routed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_of_a_deleted_queue_ends() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q", FieldTable::default()).await;
    let mut consumer = consume(&channel, "q", BasicConsumeOptions::default()).await;
    soon(channel.queue_delete("q".into(), QueueDeleteOptions::default())).await.unwrap();
    assert!(soon(consumer.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefetch_is_respected() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q", FieldTable::default()).await;
    for body in ["a", "b", "c"] {
        publish(&channel, "q", body).await;
    }
    soon(channel.basic_qos(2, BasicQosOptions::default())).await.unwrap();
    let mut consumer = consume(&channel, "q", BasicConsumeOptions::default()).await;
    let first = next(&mut consumer).await;
    assert_eq!(next(&mut consumer).await.data, b"b");
    let mut peer = broker.amqp().await;
    assert_eq!(peer.counts(1, "q").await.0, 1, "the third waits");
    soon(first.ack(BasicAckOptions::default())).await.unwrap();
    assert_eq!(next(&mut consumer).await.data, b"c");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_and_answer_by_direct_reply_to() {
    let broker = TestBroker::start().await;
    let (_asking, client) = channel(&broker).await;
    let (_answering, server) = channel(&broker).await;
    declare(&server, "rpc", FieldTable::default()).await;
    let mut requests = consume(&server, "rpc", BasicConsumeOptions::default()).await;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut replies = consume(&client, "amq.rabbitmq.reply-to", options).await;
    let properties = BasicProperties::default()
        .with_reply_to("amq.rabbitmq.reply-to".into())
        .with_correlation_id("42".into());
    publish_with(&client, "", "rpc", b"question", properties).await;
    let request = next(&mut requests).await;
    let reply_to = request.properties.reply_to().clone().unwrap();
    let properties = BasicProperties::default()
        .with_correlation_id(request.properties.correlation_id().clone().unwrap());
    publish_with(&server, "", reply_to.as_str(), b"answer", properties).await;
    let reply = next(&mut replies).await;
    assert_eq!(reply.data, b"answer");
    assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), "42");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_come_back_whole() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q", FieldTable::default()).await;
    confirming(&channel).await;
    let body: Vec<u8> = (0..5_000_000_u32).map(|octet| octet.to_le_bytes()[0] ^ 0x5a).collect();
    publish_with(&channel, "", "q", &body, BasicProperties::default()).await;
    let mut consumer = consume(&channel, "q", BasicConsumeOptions::default()).await;
    assert!(next(&mut consumer).await.data == body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_and_headers_come_back() {
    let broker = TestBroker::start().await;
    let (_connection, channel) = channel(&broker).await;
    declare(&channel, "q", FieldTable::default()).await;
    let mut headers = FieldTable::default();
    headers.insert("text".into(), text("value"));
    headers.insert("number".into(), AMQPValue::LongLongInt(-7));
    headers.insert("yes".into(), AMQPValue::Boolean(true));
    headers.insert("nothing".into(), AMQPValue::Void);
    headers.insert("real".into(), AMQPValue::Double(0.5));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(headers)
        .with_priority(3)
        .with_message_id("m".into())
        .with_timestamp(1_700_000_000)
        .with_type("kind".into())
        .with_app_id("app".into());
    publish_with(&channel, "", "q", b"{}", properties.clone()).await;
    let mut consumer = consume(&channel, "q", BasicConsumeOptions::default()).await;
    assert_eq!(next(&mut consumer).await.properties, properties);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_password_is_told() {
    let broker = TestBroker::start().await;
    let uri = format!("amqp://guest:wrong@{}/%2f", broker.amqp_address());
    let error = soon(Connection::connect(&uri, ConnectionProperties::default())).await;
    assert_eq!(code(&error.err().unwrap()), 403);
}
