//! What this broker is among those of its name: the one place that says it, and that may be watched.
//!
//! Masters take messages, serve slaves and do what only masters do; a slave has a copy of its master's log. It is what `brokerRole` says at the
//! start; nothing changes it yet but the tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::config::{BrokerConfig, BrokerRole};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Master,
    /// With its number in the group, above 0.
    Slave {
        id: i64,
    },
}

impl Role {
    /// That of a start.
    pub(crate) fn of(config: &BrokerConfig) -> Role {
        match config.broker_role {
            BrokerRole::AsyncMaster | BrokerRole::SyncMaster => Role::Master,
            BrokerRole::Slave => Role::Slave { id: config.broker_id },
        }
    }

    pub(crate) fn is_slave(self) -> bool {
        matches!(self, Role::Slave { .. })
    }

    /// The number that it is registered with.
    pub(crate) fn broker_id(self) -> i64 {
        match self {
            Role::Master => 0,
            Role::Slave { id } => id,
        }
    }
}

/// The role from some moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub role: Role,
    /// Counts masterships of the group: of two masters, nameservers take the one with the later. Travels as `stateVersion`.
    pub epoch: i64,
}

/// Where a master is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MasterAddress {
    /// `host:port` for clients.
    pub address: String,
    /// `host:port` for slaves.
    pub ha_address: String,
}

/// Owner of the role, and of what nameservers say of the master.
pub(crate) struct Standing {
    position: watch::Sender<Position>,
    /// Of the position, for who asks with each message.
    is_slave: AtomicBool,
    /// Counts changes, each after it is in force.
    changes: AtomicU64,
    /// See [`Standing::name_master`]. Locked before the position where both are.
    master: watch::Sender<Option<MasterAddress>>,
}

impl Standing {
    pub(crate) fn new(role: Role, epoch: i64) -> Standing {
        Standing {
            position: watch::Sender::new(Position { role, epoch }),
            is_slave: AtomicBool::new(role.is_slave()),
            changes: AtomicU64::new(0),
            master: watch::Sender::new(None),
        }
    }

    /// Takes no lock.
    pub(crate) fn is_slave(&self) -> bool {
        self.is_slave.load(Ordering::SeqCst)
    }

    pub(crate) fn role(&self) -> Role {
        self.position.borrow().role
    }

    /// For who is to act when it changes.
    pub(crate) fn positions(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    /// Grows with each change: what was found before holds as long as it stays.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Somebody who was told this broker's position names the master. False if that is no news, or what it was told holds no more.
    pub(crate) fn name_master(&self, told: Position, named: MasterAddress) -> bool {
        self.master.send_if_modified(|master| {
            let is_news = *self.position.borrow() == told && master.as_ref() != Some(&named);
            if is_news {
                *master = Some(named);
            }
            is_news
        })
    }

    /// The master as it was named last since the last change of position; `None` before that. Nameservers name it to slaves only.
    pub(crate) fn master(&self) -> watch::Receiver<Option<MasterAddress>> {
        self.master.subscribe()
    }

    /// From now on it is that, and no master is known.
    pub(crate) fn change(&self, position: Position) {
        self.master.send_modify(|master| {
            *master = None;
            self.position.send_replace(position);
            self.is_slave.store(position.role.is_slave(), Ordering::SeqCst);
        });
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// The standing, for owners of tables that are read before it is there: a master's until then.
#[derive(Default)]
pub(crate) struct KnownStanding(OnceLock<Arc<Standing>>);

impl KnownStanding {
    pub(crate) fn is(&self, standing: &Arc<Standing>) {
        // The first one stays; there is one.
        let _ = self.0.set(Arc::clone(standing));
    }

    pub(crate) fn is_slave(&self) -> bool {
        self.0.get().is_some_and(|standing| standing.is_slave())
    }
}
