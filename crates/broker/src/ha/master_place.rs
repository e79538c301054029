//! Where a slave finds its master: the port for slaves, and the one for questions.

use ferromq_remoting::address::{host_and_port, with_port};

use crate::standing::MasterAddress;

/// Both ports of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MasterPlace {
    /// `host:port` that the log comes from.
    pub ha: String,
    /// `host:port` that questions go to.
    pub client: String,
    /// The one for questions follows from the other only: whose it is has to be asked.
    pub is_guess: bool,
}

impl MasterPlace {
    /// `pinned` is `haMasterAddress`, `named` what nameservers say. The stream of HA has no questions, so a pinned master has to be found once
    /// more: where nameservers name one with that HA address, its other address is known; else it is taken to have its ports next to each
    /// other, as every broker has whose `haListenPort` is not set.
    pub(super) fn of(pinned: Option<&str>, named: Option<&MasterAddress>) -> Option<MasterPlace> {
        let known = named.map(|named| MasterPlace {
            ha: named.ha_address.clone(),
            client: named.address.clone(),
            is_guess: false,
        });
        let Some(pinned) = pinned else { return known };
        if let Some(known) = known.filter(|known| known.ha == pinned) {
            return Some(known);
        }
        let (host, port) = host_and_port(pinned)?;
        let client = with_port(host, port.checked_sub(1)?);
        Some(MasterPlace { ha: pinned.to_owned(), client, is_guess: true })
    }

    pub(super) fn ha_port(&self) -> Option<u16> {
        Some(host_and_port(&self.ha)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_master_is_asked_where_nameservers_say_or_one_port_below() {
        let named = MasterAddress { address: "10.0.0.1:10911".into(), ha_address: "10.1.0.1:20000".into() };
        let place = |ha: &str, client: &str, is_guess| MasterPlace { ha: ha.into(), client: client.into(), is_guess };
        assert_eq!(MasterPlace::of(None, None), None);
        let known = place("10.1.0.1:20000", "10.0.0.1:10911", false);
        assert_eq!(MasterPlace::of(None, Some(&named)), Some(known.clone()));
        assert_eq!(MasterPlace::of(Some("10.1.0.1:20000"), Some(&named)), Some(known));
        let guess = place("10.2.0.1:10912", "10.2.0.1:10911", true);
        assert_eq!(MasterPlace::of(Some("10.2.0.1:10912"), Some(&named)), Some(guess.clone()));
        assert_eq!(MasterPlace::of(Some("10.2.0.1:10912"), None), Some(guess));
        assert_eq!(MasterPlace::of(Some("[::1]:2"), None), Some(place("[::1]:2", "[::1]:1", true)));
        assert_eq!(MasterPlace::of(Some("a:0"), None), None);
    }
}
