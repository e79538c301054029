//! What this broker is among those of its name: the one place that says it, and that may be watched.
//!
//! Masters take messages and do what only masters do; a slave has a copy of its master's log. Nothing changes it yet but the tests:
//! `brokerRole` allows a master alone.

use std::sync::atomic::{AtomicU64, Ordering};

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
}

/// Owner of the role.
pub(crate) struct Standing {
    role: watch::Sender<Role>,
    /// Counts changes, each after it is in force.
    changes: AtomicU64,
}

impl Standing {
    pub(crate) fn new(role: Role) -> Standing {
        Standing { role: watch::Sender::new(role), changes: AtomicU64::new(0) }
    }

    pub(crate) fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// Grows with each change: what was found before holds as long as it stays.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// From now on it is that.
    pub(crate) fn change(&self, role: Role) {
        self.role.send_replace(role);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}
