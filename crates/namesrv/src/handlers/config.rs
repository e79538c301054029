//! Reading and changing the nameserver's own configuration. Java: `DefaultRequestProcessor.updateConfig`.

use std::sync::Arc;

use ferromq_config::{Configuration, decode_text, parse_properties};
use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{Connection, Outcome};

use super::{off_task, reply};
use crate::config::Config;
use crate::live_config::ChangeError;
use crate::parts::Parts;
use crate::refusal::Refusal;
use crate::routes::Policy;

/// Longest body that is read, in bytes. Java has no limit; here it is kept until a thread has time for it.
const LISTING_LEN_MAX: usize = 4 * 1024 * 1024;

/// GET_NAMESRV_CONFIG (319).
pub fn listing(config: &Config) -> Result<Outcome, Refusal> {
    reply(Reply::ok().body(config.to_properties()))
}

/// UPDATE_NAMESRV_CONFIG (318). Java takes an impossible value in silence and keeps the old one; here it is refused.
pub fn update(parts: &Arc<Parts>, connection: &Connection, request: &Command) -> Result<Outcome, Refusal> {
    if request.body.len() > LISTING_LEN_MAX {
        let len = request.body.len();
        return Err(Refusal::system_error(format!("the body has {len} bytes, the limit is {LISTING_LEN_MAX}")));
    }
    let entries =
        parse_properties(&decode_text(&request.body)).map_err(|error| Refusal::system_error(error.to_string()))?;
    let changes: Vec<_> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    let parts = Arc::clone(parts);
    Ok(off_task(connection, request, move || match parts.config.change(&changes) {
        Ok(config) => {
            parts.routes.lock().obey(Policy::from(&*config));
            Ok(Reply::ok())
        }
        Err(error @ ChangeError::Protected) => Err(Refusal::new(ResponseCode::NO_PERMISSION, error.to_string())),
        Err(error @ (ChangeError::Invalid(_) | ChangeError::Io(_))) => Err(Refusal::system_error(error.to_string())),
    }))
}
