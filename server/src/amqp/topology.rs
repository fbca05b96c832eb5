//! The `exchange` and `queue` classes, and `access` of older clients.

use std::sync::Arc;

use broker_core::access::Access;
use broker_core::arguments::{Arguments, Value};
use broker_core::exchange::{Binding, Destination, ExchangeSpec, ExchangeType};
use broker_core::log::LogPosition;
use broker_core::name::{ExchangeName, QueueName};
use broker_core::queue::Removed;
use broker_core::vhost::QueueDeclaration;
use broker_core::{Refusal, Resource, VirtualHost};
use proto_amqp::control::protocol::{AMQPClass, access, exchange, queue};
use proto_amqp::{ChannelId, MethodId, ReplyCode, control};

use super::consume::base64_id::server_name;
use super::error::Exception;
use super::publish::REPLY_TO;
use super::session::Session;

/// A request with what answering it needs: who asks, for what, and where.
struct Request {
    method: MethodId,
    vhost: Arc<VirtualHost>,
}

impl Request {
    fn refused(&self) -> impl Fn(Refusal) -> Exception {
        let method = self.method;
        move |refusal| Exception::refused(&refusal, method)
    }

    fn exchange(&self, name: &str) -> Result<ExchangeName, Exception> {
        ExchangeName::new(name).map_err(|error| {
            Exception::new(ReplyCode::SYNTAX_ERROR, error.to_string(), self.method)
        })
    }

    fn queue(&self, name: &str) -> Result<QueueName, Exception> {
        QueueName::new(name).map_err(|error| {
            Exception::new(ReplyCode::SYNTAX_ERROR, error.to_string(), self.method)
        })
    }
}

impl Session {
    fn request(&self, method: MethodId) -> Result<Request, Exception> {
        let vhost = self.vhost.clone().ok_or_else(|| Exception::unimplemented(method))?;
        Ok(Request { method, vhost })
    }

    /// Whether the user may do that; every method asks before it looks.
    fn may(&self, request: &Request, resource: Resource, access: Access) -> Result<(), Exception> {
        let Some(identity) = &self.identity else {
            return Err(Exception::unimplemented(request.method));
        };
        let registry = &self.node.broker.access;
        registry
            .check(&identity.user, &identity.vhost, &resource, access)
            .map_err(request.refused())
    }

    /// The queue that a name means on this channel: the last one declared when it is empty.
    fn meant_queue(
        &self,
        id: ChannelId,
        name: &str,
        request: &Request,
    ) -> Result<QueueName, Exception> {
        if !name.is_empty() {
            return request.queue(name);
        }
        let last = self.channels.get(&id.0).and_then(|channel| channel.last_queue.clone());
        last.ok_or_else(|| {
            Exception::new(ReplyCode::NOT_FOUND, "no previously declared queue", request.method)
        })
    }

    fn arguments(&self, payload: &[u8]) -> Arguments {
        control::argument_table(payload, self.version)
            .map(Arguments::from_table)
            .unwrap_or_default()
    }

    /// An exchange that an argument names, an alternate or a dead-letter exchange: to be asked for what is new,
    /// because what is there already is only compared.
    fn may_pass_on(
        &self,
        request: &Request,
        arguments: &Arguments,
        key: &str,
        from: Resource,
    ) -> Result<(), Exception> {
        let Some(name) = arguments.get(key).and_then(Value::as_text) else { return Ok(()) };
        self.may(request, from, Access::Read)?;
        let target = Resource::Exchange(request.exchange(name)?);
        self.may(request, target, Access::Write)
    }

    pub(super) fn on_access(&mut self, id: ChannelId, method: &access::AMQPMethod) {
        // What 0-8 clients ask first. The ticket means nothing: permissions are checked with every method.
        if matches!(method, access::AMQPMethod::Request(_)) {
            let request_ok = access::AMQPMethod::RequestOk(access::RequestOk {});
            self.send(id, AMQPClass::Access(request_ok));
        }
    }

    // ---- exchange ----

    pub(super) fn on_exchange(
        &mut self,
        id: ChannelId,
        class: exchange::AMQPMethod,
        payload: &[u8],
    ) -> Result<(), Exception> {
        use exchange::AMQPMethod as Exchange;
        let method = MethodId::of_payload(payload).unwrap_or(MethodId::NONE);
        let request = self.request(method)?;
        let (nowait, position, reply) = match class {
            Exchange::Declare(declare) => {
                let defined_at = self.on_exchange_declare(&request, &declare, payload)?;
                (declare.nowait, defined_at, Exchange::DeclareOk(exchange::DeclareOk {}))
            }
            Exchange::Delete(delete) => {
                let name = request.exchange(delete.exchange.as_str())?;
                request.vhost.check_deletable(&name).map_err(request.refused())?;
                self.may(&request, Resource::Exchange(name.clone()), Access::Configure)?;
                let deleted = request.vhost.delete_exchange(&name, delete.if_unused);
                (
                    delete.nowait,
                    deleted.map_err(request.refused())?,
                    Exchange::DeleteOk(exchange::DeleteOk {}),
                )
            }
            Exchange::Bind(bind) => {
                let destination = request.exchange(bind.destination.as_str())?;
                let binding = Binding {
                    source: request.exchange(bind.source.as_str())?,
                    destination: Destination::Exchange(destination),
                    routing_key: bind.routing_key.as_str().as_bytes().into(),
                    arguments: self.arguments(payload),
                };
                (bind.nowait, self.bind(&request, binding)?, Exchange::BindOk(exchange::BindOk {}))
            }
            Exchange::Unbind(unbind) => {
                let destination = request.exchange(unbind.destination.as_str())?;
                let binding = Binding {
                    source: request.exchange(unbind.source.as_str())?,
                    destination: Destination::Exchange(destination),
                    routing_key: unbind.routing_key.as_str().as_bytes().into(),
                    arguments: self.arguments(payload),
                };
                (
                    unbind.nowait,
                    self.unbind(&request, &binding)?,
                    Exchange::UnbindOk(exchange::UnbindOk {}),
                )
            }
            _ => return Err(Exception::unimplemented(method)),
        };
        if !nowait {
            self.reply_at(position, id, method, AMQPClass::Exchange(reply));
        }
        Ok(())
    }

    fn on_exchange_declare(
        &self,
        request: &Request,
        declare: &exchange::Declare,
        payload: &[u8],
    ) -> Result<LogPosition, Exception> {
        let name = request.exchange(declare.exchange.as_str())?;
        if declare.passive {
            // spec: amqp exchange.declare.passive
            if name.is_default() {
                return Err(request.refused()(Refusal::DefaultExchange));
            }
            return request.vhost.exchange_defined_at(&name).map_err(request.refused());
        }
        let kind = ExchangeType::parse(declare.kind.as_str()).map_err(request.refused())?;
        if name.is_default() {
            return Err(request.refused()(Refusal::DefaultExchange));
        }
        self.may(request, Resource::Exchange(name.clone()), Access::Configure)?;
        let arguments = self.arguments(payload);
        if request.vhost.exchange(&name).is_err() {
            let resource = Resource::Exchange(name.clone());
            self.may_pass_on(request, &arguments, "alternate-exchange", resource)?;
        }
        let spec = ExchangeSpec {
            name,
            kind,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments,
        };
        request.vhost.declare_exchange(spec).map_err(request.refused())
    }

    fn may_bind(&self, request: &Request, binding: &Binding) -> Result<(), Exception> {
        let destination = match &binding.destination {
            Destination::Queue(name) => Resource::Queue(name.clone()),
            Destination::Exchange(name) => Resource::Exchange(name.clone()),
        };
        let to_default =
            matches!(&binding.destination, Destination::Exchange(name) if name.is_default());
        self.may(request, destination, Access::Write)?;
        if binding.source.is_default() || to_default {
            return Err(request.refused()(Refusal::DefaultExchange));
        }
        self.may(request, Resource::Exchange(binding.source.clone()), Access::Read)
    }

    fn bind(&self, request: &Request, binding: Binding) -> Result<LogPosition, Exception> {
        self.may_bind(request, &binding)?;
        request.vhost.bind(binding, self.id).map_err(request.refused())
    }

    fn unbind(&self, request: &Request, binding: &Binding) -> Result<LogPosition, Exception> {
        self.may_bind(request, binding)?;
        request.vhost.unbind(binding, self.id).map_err(request.refused())
    }

    // ---- queue ----

    pub(super) fn on_queue(
        &mut self,
        id: ChannelId,
        class: queue::AMQPMethod,
        payload: &[u8],
    ) -> Result<(), Exception> {
        use queue::AMQPMethod as Queue;
        let method = MethodId::of_payload(payload).unwrap_or(MethodId::NONE);
        let request = self.request(method)?;
        let (nowait, position, reply) = match class {
            Queue::Declare(declare) => {
                let (defined_at, declare_ok) =
                    self.on_queue_declare(id, &request, &declare, payload)?;
                (declare.nowait, defined_at, Queue::DeclareOk(declare_ok))
            }
            Queue::Bind(bind) => {
                let name = self.meant_queue(id, bind.queue.as_str(), &request)?;
                let key = meant_key(bind.queue.as_str(), bind.routing_key.as_str(), &name);
                let binding = Binding {
                    source: request.exchange(bind.exchange.as_str())?,
                    destination: Destination::Queue(name),
                    routing_key: key,
                    arguments: self.arguments(payload),
                };
                (bind.nowait, self.bind(&request, binding)?, Queue::BindOk(queue::BindOk {}))
            }
            Queue::Unbind(unbind) => {
                let name = self.meant_queue(id, unbind.queue.as_str(), &request)?;
                let key = meant_key(unbind.queue.as_str(), unbind.routing_key.as_str(), &name);
                let binding = Binding {
                    source: request.exchange(unbind.exchange.as_str())?,
                    destination: Destination::Queue(name),
                    routing_key: key,
                    arguments: self.arguments(payload),
                };
                (false, self.unbind(&request, &binding)?, Queue::UnbindOk(queue::UnbindOk {}))
            }
            Queue::Purge(purge) => {
                let name = self.meant_queue(id, purge.queue.as_str(), &request)?;
                self.may(&request, Resource::Queue(name.clone()), Access::Read)?;
                let found = request.vhost.queue_for(&name, self.id).map_err(request.refused())?;
                let Removed { count, position } = found.purge();
                let message_count = count32(count);
                (purge.nowait, position, Queue::PurgeOk(queue::PurgeOk { message_count }))
            }
            Queue::Delete(delete) => {
                let name = self.meant_queue(id, delete.queue.as_str(), &request)?;
                self.may(&request, Resource::Queue(name.clone()), Access::Configure)?;
                let deleted = request
                    .vhost
                    .delete_queue(&name, Some(self.id), delete.if_unused, delete.if_empty)
                    .map_err(request.refused())?;
                let message_count = count32(deleted.count);
                (
                    delete.nowait,
                    deleted.position,
                    Queue::DeleteOk(queue::DeleteOk { message_count }),
                )
            }
            _ => return Err(Exception::unimplemented(method)),
        };
        if !nowait {
            self.reply_at(position, id, method, AMQPClass::Queue(reply));
        }
        Ok(())
    }

    fn on_queue_declare(
        &mut self,
        id: ChannelId,
        request: &Request,
        declare: &queue::Declare,
        payload: &[u8],
    ) -> Result<(LogPosition, queue::DeclareOk), Exception> {
        let mut name = request.queue(declare.queue.as_str())?;
        let now = self.node.clock.now();
        let found = if name.as_str() == REPLY_TO {
            // RabbitMQ: the pseudo queue is always there.
            let queue = REPLY_TO.into();
            let declare_ok = queue::DeclareOk { queue, message_count: 0, consumer_count: 1 };
            return Ok((LogPosition::START, declare_ok));
        } else if declare.passive || name.as_str().starts_with("amq.rabbitmq.reply-to.") {
            let found = request.vhost.queue(&name).map_err(request.refused())?;
            // Whoever answers may ask whether the asker is still there.
            if !name.as_str().starts_with("amq.rabbitmq.reply-to.") {
                request.vhost.queue_for(&name, self.id).map_err(request.refused())?;
            }
            found.touch(now);
            found
        } else {
            let server_named = name.as_str().is_empty();
            if server_named {
                name = request.queue(&server_name("amq.gen-"))?;
            }
            if !server_named {
                VirtualHost::check_declarable(&name).map_err(request.refused())?;
            }
            self.may(request, Resource::Queue(name.clone()), Access::Configure)?;
            let arguments = self.arguments(payload);
            if request.vhost.queue(&name).is_err() {
                let resource = Resource::Queue(name.clone());
                self.may_pass_on(request, &arguments, "x-dead-letter-exchange", resource)?;
            }
            let declaration = QueueDeclaration {
                name: name.clone(),
                server_named,
                durable: declare.durable,
                exclusive: declare.exclusive,
                auto_delete: declare.auto_delete,
                arguments,
            };
            let declared = request.vhost.declare_queue(declaration, self.id, now);
            declared.map_err(request.refused())?.queue
        };
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.last_queue = Some(name.clone());
        }
        let depth = found.depth();
        let declare_ok = queue::DeclareOk {
            queue: name.as_str().into(),
            message_count: count32(depth.ready),
            consumer_count: count32(depth.consumers),
        };
        Ok((found.defined_at, declare_ok))
    }
}

/// When queue and key are both empty the key is the queue's name too (spec: amqp queue.bind.routing-key).
fn meant_key(queue: &str, routing_key: &str, meant: &QueueName) -> Box<[u8]> {
    if queue.is_empty() && routing_key.is_empty() {
        meant.as_str().as_bytes().into()
    } else {
        routing_key.as_bytes().into()
    }
}

/// A count as a reply says it.
fn count32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
