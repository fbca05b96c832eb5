//! Where the messages of a channel go, remembered.
//!
//! Most channels publish to a few keys over and over. A remembered route holds while neither the topology of the
//! virtual host nor any permission has changed, and carries the answers to all questions that a publish asks: whether
//! the exchange exists, is not internal, may be written to, and which queues are behind it.

use std::sync::Arc;

use broker_core::access::Access;
use broker_core::exchange::HeaderTable;
use broker_core::name::ExchangeName;
use broker_core::queue::Queue;
use broker_core::{Refusal, Resource, VirtualHost};
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::node::{Identity, Node};

/// Keys that a channel remembers; when it has met more, it begins anew.
const ROUTES_MAX: usize = 1024;

/// The queues behind an exchange and a key.
#[derive(Debug)]
pub(super) struct Route {
    exchange: Box<[u8]>,
    routing_key: Box<[u8]>,
    pub(super) queues: SmallVec<[Arc<Queue>; 2]>,
}

/// The routes of one channel.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Epoch of the topology and revision of the permissions that they hold for.
    valid_for: (u64, u64),
    last: Option<Arc<Route>>,
    by_key: HashMap<Box<[u8]>, Arc<Route>, foldhash::fast::RandomState>,
    scratch: Vec<u8>,
}

/// Who asks for a route, and where.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) node: &'a Node,
    pub(super) vhost: &'a VirtualHost,
    pub(super) identity: &'a Identity,
}

impl Asking<'_> {
    /// Looks the route up in the topology, after asking whether the user may publish there.
    ///
    /// # Errors
    /// [`Refusal`] by permission, then because there is no such exchange, then because it is internal.
    pub(super) fn route(
        &self,
        exchange: &[u8],
        keys: &[&[u8]],
        headers: HeaderTable<'_>,
    ) -> Result<broker_core::vhost::Route, Refusal> {
        let name = self.exchange_name(exchange)?;
        let resource = Resource::Exchange(name.clone());
        let Identity { user, vhost, .. } = self.identity;
        self.node.broker.access.check(user, vhost, &resource, Access::Write)?;
        if self.vhost.exchange(&name)?.internal {
            return Err(Refusal::InternalExchange { exchange: name, vhost: vhost.clone() });
        }
        self.vhost.route(&name, keys, headers)
    }

    /// A name that is not UTF-8 belongs to no exchange.
    fn exchange_name(&self, exchange: &[u8]) -> Result<ExchangeName, Refusal> {
        let text = String::from_utf8_lossy(exchange);
        let not_found = |name| Refusal::NotFound {
            resource: Resource::Exchange(name),
            vhost: self.vhost.name.clone(),
        };
        match (ExchangeName::new(&text), text) {
            (Ok(name), std::borrow::Cow::Borrowed(_)) => Ok(name),
            (Ok(name), std::borrow::Cow::Owned(_)) => Err(not_found(name)),
            // Replacement characters made it longer than a name can be.
            (Err(_), _) => Err(Refusal::DefaultExchange),
        }
    }
}

impl Routes {
    /// The route for a key; `None` when the message's headers decide, so that it cannot be remembered.
    ///
    /// # Errors
    /// As [`Asking::route`].
    #[inline]
    pub(super) fn find(
        &mut self,
        asking: Asking<'_>,
        exchange: &[u8],
        routing_key: &[u8],
    ) -> Result<Option<Arc<Route>>, Refusal> {
        let valid_for = (asking.vhost.revision(), asking.node.broker.access.revision());
        if self.valid_for != valid_for {
            self.forget();
            self.valid_for = valid_for;
        }
        if let Some(last) = &self.last
            && same(&last.routing_key, routing_key)
            && same(&last.exchange, exchange)
        {
            return Ok(Some(Arc::clone(last)));
        }
        self.find_slow(asking, exchange, routing_key)
    }

    fn find_slow(
        &mut self,
        asking: Asking<'_>,
        exchange: &[u8],
        routing_key: &[u8],
    ) -> Result<Option<Arc<Route>>, Refusal> {
        self.scratch.clear();
        self.scratch.push(u8::try_from(exchange.len()).unwrap_or(u8::MAX));
        self.scratch.extend_from_slice(exchange);
        self.scratch.extend_from_slice(routing_key);
        if let Some(known) = self.by_key.get(&*self.scratch) {
            self.last = Some(Arc::clone(known));
            return Ok(self.last.clone());
        }
        let found = asking.route(exchange, &[routing_key], None)?;
        if found.by_headers {
            return Ok(None);
        }
        let route = Arc::new(Route {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            queues: found.queues,
        });
        if self.by_key.len() >= ROUTES_MAX {
            self.by_key.clear();
        }
        self.by_key.insert(self.scratch.as_slice().into(), Arc::clone(&route));
        self.last = Some(Arc::clone(&route));
        Ok(Some(route))
    }

    fn forget(&mut self) {
        self.last = None;
        self.by_key.clear();
    }
}

/// Compares names without looking at the octets of empty ones: an empty boxed slice points nowhere, and glibc's
/// vector `memcmp` reads from there all the same, masked, which costs a hundred nanoseconds on some processors.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

impl Route {
    /// A route that is used once.
    pub(super) fn once(queues: SmallVec<[Arc<Queue>; 2]>) -> Arc<Self> {
        Arc::new(Self { exchange: Box::default(), routing_key: Box::default(), queues })
    }
}
