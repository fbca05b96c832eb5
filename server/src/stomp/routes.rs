//! Where destinations lead, remembered until the topology or a permission changes.

use std::sync::Arc;

use broker_core::access::Access;
use broker_core::name::ExchangeName;
use broker_core::queue::Queue;
use broker_core::{Refusal, Resource, VirtualHost};
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::node::{Identity, Node};

/// Destinations that are remembered; beyond it all are forgotten and looked up again.
const ROUTES_MAX: usize = 1024;

/// Where the messages of a destination go.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) exchange: ExchangeName,
    pub(super) routing_key: Box<[u8]>,
    pub(super) queues: SmallVec<[Arc<Queue>; 2]>,
}

#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Epoch of the topology and revision of the permissions.
    valid_for: (u64, u64),
    last: Option<(Box<[u8]>, Arc<Route>)>,
    by_destination: HashMap<Box<[u8]>, Arc<Route>, foldhash::fast::RandomState>,
}

/// Who asks for a route, and where.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) node: &'a Node,
    pub(super) vhost: &'a VirtualHost,
    pub(super) identity: &'a Identity,
}

impl Asking<'_> {
    /// Whether the user may do this: asks the only authority.
    pub(super) fn check(&self, resource: &Resource, access: Access) -> Result<(), Refusal> {
        let Identity { user, vhost, .. } = self.identity;
        self.node.broker.access.check(user, vhost, resource, access)
    }

    /// Looks a route up in the topology, after asking whether the user may publish there; gives also whether it
    /// holds for messages with other headers.
    ///
    /// # Errors
    /// [`Refusal`] by permission, then because there is no such exchange, then because it is internal.
    pub(super) fn route(
        &self,
        exchange: &ExchangeName,
        routing_key: &[u8],
        headers: Option<&[u8]>,
    ) -> Result<(Route, bool), Refusal> {
        self.check(&Resource::Exchange(exchange.clone()), Access::Write)?;
        if self.vhost.exchange(exchange)?.internal {
            let (exchange, vhost) = (exchange.clone(), self.vhost.name.clone());
            return Err(Refusal::InternalExchange { exchange, vhost });
        }
        let found = self.vhost.route(exchange, &[routing_key], headers)?;
        let route = Route {
            exchange: exchange.clone(),
            routing_key: routing_key.into(),
            queues: found.queues,
        };
        Ok((route, !found.by_headers))
    }

    fn now_valid(&self) -> (u64, u64) {
        (self.vhost.revision(), self.node.broker.access.revision())
    }
}

impl Routes {
    /// The route of a destination, if it is remembered and still holds.
    #[inline]
    pub(super) fn find(&mut self, asking: Asking<'_>, destination: &[u8]) -> Option<Arc<Route>> {
        let valid_for = asking.now_valid();
        if self.valid_for != valid_for {
            self.last = None;
            self.by_destination.clear();
            self.valid_for = valid_for;
        }
        if let Some((last, route)) = &self.last
            && **last == *destination
        {
            return Some(Arc::clone(route));
        }
        let route = Arc::clone(self.by_destination.get(destination)?);
        self.last = Some((destination.into(), Arc::clone(&route)));
        Some(route)
    }

    /// Remembers a route that was looked up after the last [`find`](Self::find), unless something has changed since.
    pub(super) fn remember(&mut self, destination: &[u8], route: &Arc<Route>) {
        if self.by_destination.len() >= ROUTES_MAX {
            self.by_destination.clear();
        }
        self.by_destination.insert(destination.into(), Arc::clone(route));
    }
}
