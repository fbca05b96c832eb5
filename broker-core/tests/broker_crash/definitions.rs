//! What clients do to the topology: queues, exchanges and bindings come and go.

use broker_core::exchange::{Binding, Destination, ExchangeSpec, ExchangeType};
use broker_core::vhost::QueueDeclaration;
use rand::RngExt;

use crate::actions::{Done, exchange_name, queue_name};
use crate::plain::{
    ALL_QUEUES, Change, DEAD1, DEAD2, Defined, EXCHANGES, EXPIRING, Name, PROFILES, Profile, QUEUES,
};
use crate::world::{CONNECTION, Live, World};

impl World {
    pub(crate) fn choose_profile(&mut self, name: Name) -> Profile {
        match name {
            "dead1" => DEAD1,
            "dead2" => DEAD2,
            _ => {
                let index = self.random.random_range(0..PROFILES.len());
                let profile = PROFILES[index];
                let is_taken = self.live.values().any(|live| live.profile == profile);
                if index == EXPIRING && is_taken { PROFILES[0] } else { profile }
            }
        }
    }

    pub(crate) fn declare_queue(&mut self) -> Done {
        let missing: Vec<Name> =
            ALL_QUEUES.into_iter().filter(|name| !self.live.contains_key(name)).collect();
        let Some(name) = self.choose(&missing) else { return Ok(()) };
        let profile = self.choose_profile(name);
        self.begin_deed();
        let declaration = QueueDeclaration {
            name: queue_name(name),
            server_named: false,
            durable: profile.durable,
            exclusive: false,
            auto_delete: false,
            arguments: profile.arguments(),
        };
        let declared = self.vhost().declare_queue(declaration, CONNECTION, self.now());
        let declared = declared.map_err(|refusal| refusal.to_string())?;
        if !declared.new {
            return Err(format!("queue {name} was there before"));
        }
        let defined_at = declared.queue.defined_at;
        let (ready, unacked) = Default::default();
        let live = Live { profile, queue: declared.queue, ready, unacked, restored: false };
        self.live.insert(name, live);
        if profile.durable {
            let defined = Some(Defined::Queue(name, profile));
            self.change_at(defined_at.0, Change { defined, ..Change::default() });
        }
        self.end_deed(Vec::new())
    }

    pub(crate) fn delete_queue(&mut self) -> Done {
        let candidates = self.live_queues(&ALL_QUEUES);
        let Some(name) = self.choose(&candidates) else { return Ok(()) };
        self.begin_deed();
        let deleted = self.vhost().delete_queue(&queue_name(name), Some(CONNECTION), false, false);
        let deleted = deleted.map_err(|refusal| refusal.to_string())?;
        let live = self.live.remove(name).ok_or("no queue")?;
        if deleted.count != live.ready.len() as u64 {
            return Err(format!("deleting {name} with {} gives {deleted:?}", live.ready.len()));
        }
        self.consumers.retain(|consumer| consumer.name != name);
        self.bindings.retain(|(_, queue)| *queue != name);
        if live.profile.durable {
            let defined = Some(Defined::NoQueue(name));
            self.change_at(deleted.position.0, Change { defined, ..Change::default() });
        }
        self.end_deed(Vec::new())
    }

    pub(crate) fn declare_exchange(&mut self) -> Done {
        let missing: Vec<Name> =
            EXCHANGES.into_iter().filter(|name| !self.exchanges.contains(name)).collect();
        let Some(name) = self.choose(&missing) else { return Ok(()) };
        self.begin_deed();
        let spec = ExchangeSpec {
            name: exchange_name(name),
            kind: ExchangeType::Fanout,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Default::default(),
        };
        let declared = self.vhost().declare_exchange(spec);
        let position = declared.map_err(|refusal| refusal.to_string())?;
        self.exchanges.insert(name);
        let defined = Some(Defined::Exchange(name));
        self.change_at(position.0, Change { defined, ..Change::default() });
        self.end_deed(Vec::new())
    }

    pub(crate) fn delete_exchange(&mut self) -> Done {
        let there: Vec<Name> = self.exchanges.iter().copied().collect();
        let Some(name) = self.choose(&there) else { return Ok(()) };
        self.begin_deed();
        let deleted = self.vhost().delete_exchange(&exchange_name(name), false);
        let position = deleted.map_err(|refusal| refusal.to_string())?;
        self.exchanges.remove(name);
        self.bindings.retain(|(exchange, _)| *exchange != name);
        let defined = Some(Defined::NoExchange(name));
        self.change_at(position.0, Change { defined, ..Change::default() });
        self.end_deed(Vec::new())
    }

    fn binding(exchange: Name, queue: Name) -> Binding {
        Binding {
            source: exchange_name(exchange),
            destination: Destination::Queue(queue_name(queue)),
            routing_key: b"key".as_slice().into(),
            arguments: Default::default(),
        }
    }

    pub(crate) fn bind(&mut self) -> Done {
        let there: Vec<Name> = self.exchanges.iter().copied().collect();
        let Some(exchange) = self.choose(&there) else { return Ok(()) };
        let ends: &[Name] = if exchange == "graves" { &["dead1", "dead2"] } else { &QUEUES };
        let ends = self.live_queues(ends);
        let Some(queue) = self.choose(&ends) else { return Ok(()) };
        self.begin_deed();
        let bound = self.vhost().bind(Self::binding(exchange, queue), CONNECTION);
        let position = bound.map_err(|refusal| refusal.to_string())?;
        let is_new = self.bindings.insert((exchange, queue));
        if is_new && self.is_durable(queue) {
            let defined = Some(Defined::Binding(exchange, queue));
            self.change_at(position.0, Change { defined, ..Change::default() });
        }
        self.end_deed(Vec::new())
    }

    pub(crate) fn unbind(&mut self) -> Done {
        let there: Vec<(Name, Name)> = self.bindings.iter().copied().collect();
        let Some((exchange, queue)) = self.choose(&there) else { return Ok(()) };
        self.begin_deed();
        let unbound = self.vhost().unbind(&Self::binding(exchange, queue), CONNECTION);
        let position = unbound.map_err(|refusal| refusal.to_string())?;
        self.bindings.remove(&(exchange, queue));
        if self.is_durable(queue) {
            let defined = Some(Defined::NoBinding(exchange, queue));
            self.change_at(position.0, Change { defined, ..Change::default() });
        }
        self.end_deed(Vec::new())
    }
}
