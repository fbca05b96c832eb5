//! Every control method of 0-9-1, filled with generated values.

use amq_protocol::{
    protocol::{AMQPClass, access, basic, channel, confirm, connection, exchange, queue, tx},
    types::{FieldTable, ShortString},
};
use proptest::prelude::*;

use crate::common::{field_table, short_string};

/// Every control method of 0-9-1, filled with the same few values.
pub(crate) fn control_methods() -> impl Strategy<Value = Vec<AMQPClass>> {
    (
        short_string(),
        short_string(),
        short_string(),
        field_table(),
        any::<u8>(),
        any::<u16>(),
        any::<u32>(),
        any::<u64>(),
    )
        .prop_map(|(a, b, c, table, bits, short, long, longlong)| {
            let mut methods = connection_methods(&a, &table, short, long);
            methods.extend(channel_methods(&a, bits, short));
            methods.extend(topology_methods(&a, &b, &c, &table, bits, long));
            methods.extend(basic_methods(&a, &b, &c, &table, bits, short, long, longlong));
            methods.extend(small_methods(bits));
            methods
        })
}

fn connection_methods(
    name: &ShortString,
    table: &FieldTable,
    short: u16,
    long: u32,
) -> Vec<AMQPClass> {
    use connection::AMQPMethod as M;
    [
        M::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: table.clone(),
            mechanisms: name.as_str().into(),
            locales: "en_US".into(),
        }),
        M::StartOk(connection::StartOk {
            client_properties: table.clone(),
            mechanism: name.clone(),
            response: name.as_str().into(),
            locale: name.clone(),
        }),
        M::Secure(connection::Secure { challenge: name.as_str().into() }),
        M::SecureOk(connection::SecureOk { response: name.as_str().into() }),
        M::Tune(connection::Tune { channel_max: short, frame_max: long, heartbeat: short }),
        M::TuneOk(connection::TuneOk { channel_max: short, frame_max: long, heartbeat: short }),
        M::Open(connection::Open { virtual_host: name.clone() }),
        M::OpenOk(connection::OpenOk {}),
        M::Close(connection::Close {
            reply_code: short,
            reply_text: name.clone(),
            class_id: short,
            method_id: short,
        }),
        M::CloseOk(connection::CloseOk {}),
        M::Blocked(connection::Blocked { reason: name.clone() }),
        M::Unblocked(connection::Unblocked {}),
        M::UpdateSecret(connection::UpdateSecret {
            new_secret: name.as_str().into(),
            reason: name.clone(),
        }),
        M::UpdateSecretOk(connection::UpdateSecretOk {}),
    ]
    .map(AMQPClass::Connection)
    .into()
}

fn channel_methods(name: &ShortString, bits: u8, short: u16) -> Vec<AMQPClass> {
    use channel::AMQPMethod as M;
    [
        M::Open(channel::Open {}),
        M::OpenOk(channel::OpenOk {}),
        M::Flow(channel::Flow { active: bits & 1 != 0 }),
        M::FlowOk(channel::FlowOk { active: bits & 1 != 0 }),
        M::Close(channel::Close {
            reply_code: short,
            reply_text: name.clone(),
            class_id: short,
            method_id: short,
        }),
        M::CloseOk(channel::CloseOk {}),
    ]
    .map(AMQPClass::Channel)
    .into()
}

fn topology_methods(
    a: &ShortString,
    b: &ShortString,
    c: &ShortString,
    table: &FieldTable,
    bits: u8,
    long: u32,
) -> Vec<AMQPClass> {
    let bit = |n: u8| bits >> n & 1 != 0;
    let exchange = {
        use exchange::AMQPMethod as M;
        [
            M::Declare(exchange::Declare {
                exchange: a.clone(),
                kind: b.clone(),
                passive: bit(0),
                durable: bit(1),
                auto_delete: bit(2),
                internal: bit(3),
                nowait: bit(4),
                arguments: table.clone(),
            }),
            M::DeclareOk(exchange::DeclareOk {}),
            M::Delete(exchange::Delete { exchange: a.clone(), if_unused: bit(0), nowait: bit(1) }),
            M::DeleteOk(exchange::DeleteOk {}),
            M::Bind(exchange::Bind {
                destination: a.clone(),
                source: b.clone(),
                routing_key: c.clone(),
                nowait: bit(0),
                arguments: table.clone(),
            }),
            M::BindOk(exchange::BindOk {}),
            M::Unbind(exchange::Unbind {
                destination: a.clone(),
                source: b.clone(),
                routing_key: c.clone(),
                nowait: bit(0),
                arguments: table.clone(),
            }),
            M::UnbindOk(exchange::UnbindOk {}),
        ]
        .map(AMQPClass::Exchange)
    };
    let queue = {
        use queue::AMQPMethod as M;
        [
            M::Declare(queue::Declare {
                queue: a.clone(),
                passive: bit(0),
                durable: bit(1),
                exclusive: bit(2),
                auto_delete: bit(3),
                nowait: bit(4),
                arguments: table.clone(),
            }),
            M::DeclareOk(queue::DeclareOk {
                queue: a.clone(),
                message_count: long,
                consumer_count: long,
            }),
            M::Bind(queue::Bind {
                queue: a.clone(),
                exchange: b.clone(),
                routing_key: c.clone(),
                nowait: bit(0),
                arguments: table.clone(),
            }),
            M::BindOk(queue::BindOk {}),
            M::Purge(queue::Purge { queue: a.clone(), nowait: bit(0) }),
            M::PurgeOk(queue::PurgeOk { message_count: long }),
            M::Delete(queue::Delete {
                queue: a.clone(),
                if_unused: bit(0),
                if_empty: bit(1),
                nowait: bit(2),
            }),
            M::DeleteOk(queue::DeleteOk { message_count: long }),
            M::Unbind(queue::Unbind {
                queue: a.clone(),
                exchange: b.clone(),
                routing_key: c.clone(),
                arguments: table.clone(),
            }),
            M::UnbindOk(queue::UnbindOk {}),
        ]
        .map(AMQPClass::Queue)
    };
    exchange.into_iter().chain(queue).collect()
}

#[expect(clippy::too_many_arguments, reason = "one value of each type for all methods")]
fn basic_methods(
    a: &ShortString,
    b: &ShortString,
    c: &ShortString,
    table: &FieldTable,
    bits: u8,
    short: u16,
    long: u32,
    longlong: u64,
) -> Vec<AMQPClass> {
    use basic::AMQPMethod as M;
    let bit = |n: u8| bits >> n & 1 != 0;
    [
        M::Qos(basic::Qos { prefetch_count: short, global: bit(0) }),
        M::QosOk(basic::QosOk {}),
        M::Consume(basic::Consume {
            queue: a.clone(),
            consumer_tag: b.clone(),
            no_local: bit(0),
            no_ack: bit(1),
            exclusive: bit(2),
            nowait: bit(3),
            arguments: table.clone(),
        }),
        M::ConsumeOk(basic::ConsumeOk { consumer_tag: a.clone() }),
        M::Cancel(basic::Cancel { consumer_tag: a.clone(), nowait: bit(0) }),
        M::CancelOk(basic::CancelOk { consumer_tag: a.clone() }),
        M::Publish(basic::Publish {
            exchange: a.clone(),
            routing_key: b.clone(),
            mandatory: bit(0),
            immediate: bit(1),
        }),
        M::Return(basic::Return {
            reply_code: short,
            reply_text: a.clone(),
            exchange: b.clone(),
            routing_key: c.clone(),
        }),
        M::Deliver(basic::Deliver {
            consumer_tag: a.clone(),
            delivery_tag: longlong,
            redelivered: bit(0),
            exchange: b.clone(),
            routing_key: c.clone(),
        }),
        M::Get(basic::Get { queue: a.clone(), no_ack: bit(0) }),
        M::GetOk(basic::GetOk {
            delivery_tag: longlong,
            redelivered: bit(0),
            exchange: a.clone(),
            routing_key: b.clone(),
            message_count: long,
        }),
        M::GetEmpty(basic::GetEmpty {}),
        M::Ack(basic::Ack { delivery_tag: longlong, multiple: bit(0) }),
        M::Reject(basic::Reject { delivery_tag: longlong, requeue: bit(0) }),
        M::RecoverAsync(basic::RecoverAsync { requeue: bit(0) }),
        M::Recover(basic::Recover { requeue: bit(0) }),
        M::RecoverOk(basic::RecoverOk {}),
        M::Nack(basic::Nack { delivery_tag: longlong, multiple: bit(0), requeue: bit(1) }),
    ]
    .map(AMQPClass::Basic)
    .into()
}

fn small_methods(bits: u8) -> Vec<AMQPClass> {
    let bit = |n: u8| bits >> n & 1 != 0;
    vec![
        AMQPClass::Access(access::AMQPMethod::Request(access::Request {
            realm: "/data".into(),
            exclusive: bit(0),
            passive: bit(1),
            active: bit(2),
            write: bit(3),
            read: bit(4),
        })),
        AMQPClass::Access(access::AMQPMethod::RequestOk(access::RequestOk {})),
        AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: bit(0) })),
        AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})),
        AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {})),
        AMQPClass::Tx(tx::AMQPMethod::SelectOk(tx::SelectOk {})),
        AMQPClass::Tx(tx::AMQPMethod::Commit(tx::Commit {})),
        AMQPClass::Tx(tx::AMQPMethod::CommitOk(tx::CommitOk {})),
        AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {})),
        AMQPClass::Tx(tx::AMQPMethod::RollbackOk(tx::RollbackOk {})),
    ]
}
