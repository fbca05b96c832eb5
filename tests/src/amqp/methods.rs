//! Which methods there are, and which answers which.

use proto_amqp::control::protocol::{
    AMQPClass, access, basic, channel, confirm, connection, exchange, queue, tx,
};

/// A method of the protocol.
pub trait Method: Sized {
    /// The method among all methods.
    fn into_class(self) -> AMQPClass;

    /// This method out of all methods.
    ///
    /// # Errors
    /// What it is instead.
    fn from_class(class: AMQPClass) -> Result<Self, AMQPClass>;
}

/// A method that is answered.
pub trait Request: Method {
    /// The answer.
    type Reply: Method;
}

macro_rules! methods {
    ($($class:ident :: $module:ident { $($method:ident $(=> $reply:ident)?),* $(,)? })*) => {
        $($(
            impl Method for $module::$method {
                fn into_class(self) -> AMQPClass {
                    AMQPClass::$class($module::AMQPMethod::$method(self))
                }

                fn from_class(class: AMQPClass) -> Result<Self, AMQPClass> {
                    match class {
                        AMQPClass::$class($module::AMQPMethod::$method(method)) => Ok(method),
                        other => Err(other),
                    }
                }
            }

            $(impl Request for $module::$method {
                type Reply = $module::$reply;
            })?
        )*)*
    };
}

methods! {
    Connection::connection {
        Start, StartOk, Tune, TuneOk, Open => OpenOk, OpenOk, Close => CloseOk, CloseOk, Blocked,
        Unblocked, UpdateSecret => UpdateSecretOk, UpdateSecretOk,
    }
    Channel::channel {
        Open => OpenOk, OpenOk, Flow => FlowOk, FlowOk, Close => CloseOk, CloseOk,
    }
    Access::access { Request => RequestOk, RequestOk }
    Exchange::exchange {
        Declare => DeclareOk, DeclareOk, Delete => DeleteOk, DeleteOk, Bind => BindOk, BindOk,
        Unbind => UnbindOk, UnbindOk,
    }
    Queue::queue {
        Declare => DeclareOk, DeclareOk, Bind => BindOk, BindOk, Unbind => UnbindOk, UnbindOk,
        Purge => PurgeOk, PurgeOk, Delete => DeleteOk, DeleteOk,
    }
    Basic::basic {
        Qos => QosOk, QosOk, Consume => ConsumeOk, ConsumeOk, Cancel => CancelOk, CancelOk, Publish,
        Return, Deliver, Get, GetOk, GetEmpty, Ack, Nack, Reject, RecoverAsync,
        Recover => RecoverOk, RecoverOk,
    }
    Tx::tx {
        Select => SelectOk, SelectOk, Commit => CommitOk, CommitOk, Rollback => RollbackOk, RollbackOk,
    }
    Confirm::confirm { Select => SelectOk, SelectOk }
}

/// Whether a content follows what the broker sends.
pub(super) const fn has_content(class: &AMQPClass) -> bool {
    use basic::AMQPMethod::{Deliver, GetOk, Return};
    matches!(class, AMQPClass::Basic(Deliver(_) | GetOk(_) | Return(_)))
}
