//! Administration of subscription groups: 200, 201, 207, 225, 352, 353.
//!
//! A change is answered when it is on disk. Java: `AdminBrokerProcessor`. 5.3.3 does not check names here; a group
//! with a name that is no topic's could never get a message back.

use std::sync::Arc;

use ferromq_protocol::body::{GroupForbidden, SubscriptionGroup, SubscriptionGroupList};
use ferromq_protocol::header::{DeleteGroupRequest, GroupConfigRequest, GroupForbiddenRequest};
use ferromq_protocol::{GroupName, Reply, ResponseCode};
use tracing::info;

use crate::answer::Answer;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::Groups;
use crate::peer::Origin;
use crate::refusal::Refusal;
use crate::statistics::Statistics;
use crate::topic_attributes as attributes;
use crate::topics::perm;

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP.
pub(crate) fn update(groups: &Arc<Groups>, origin: &Origin, wanted: SubscriptionGroup) -> Result<Answer, Refusal> {
    refuse_name(&wanted.group_name)?;
    put(groups, wanted, origin)?;
    Ok(saved(groups, Reply::ok()))
}

fn refuse_name(group: &GroupName) -> Result<(), Refusal> {
    group.validate().map_err(|error| Refusal::invalid_parameter(error.to_string()))
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST: names that cannot be let nothing be done.
pub(crate) fn update_list(
    groups: &Arc<Groups>,
    origin: &Origin,
    list: SubscriptionGroupList,
) -> Result<Answer, Refusal> {
    for wanted in &list.group_config_list {
        refuse_name(&wanted.group_name)?;
    }
    for wanted in list.group_config_list {
        put(groups, wanted, origin)?;
    }
    Ok(saved(groups, Reply::ok()))
}

/// The reply, once the change is on disk.
fn saved(groups: &Arc<Groups>, reply: Reply) -> Answer {
    let groups = Arc::clone(groups);
    Answer::when_saved(reply, move |done| groups.when_saved(done))
}

fn put(groups: &Groups, wanted: SubscriptionGroup, origin: &Origin) -> Result<(), Refusal> {
    let current = groups.find(&wanted.group_name);
    let attributes =
        attributes::alter(attributes::OF_GROUPS, current.as_ref().map(|group| &group.attributes), &wanted.attributes)
            .map_err(|error| Refusal::system_error(error.to_string()))?;
    if current.is_none() {
        groups.check_room(1).map_err(Refusal::full)?;
    }
    info!(group = %wanted.group_name, peer = %origin.address, "subscription group updated");
    groups.update(SubscriptionGroup { attributes, ..wanted });
    Ok(())
}

/// GET_ALL_SUBSCRIPTIONGROUP_CONFIG, unpaged as in 5.3.3.
pub(crate) fn all(groups: &Groups) -> Reply {
    Reply::ok().json_body(&groups.snapshot())
}

/// GET_SUBSCRIPTIONGROUP_CONFIG. An unknown group comes into being by being asked for, where that is allowed.
pub(crate) fn one(groups: &Groups, request: &GroupConfigRequest) -> Result<Reply, Refusal> {
    let Some(group) = groups.find_or_create(&request.group) else {
        let remark = format!("No group in this broker. group: {}", request.group);
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    };
    Ok(Reply::ok().json_body(&*group))
}

/// DELETE_SUBSCRIPTIONGROUP. An unknown group is no error.
pub(crate) fn delete(
    groups: &Arc<Groups>,
    offsets: &Arc<ConsumerOffsets>,
    statistics: &Statistics,
    origin: &Origin,
    request: &DeleteGroupRequest,
) -> Answer {
    groups.remove(&request.group_name);
    if request.clean_offset {
        offsets.remove_group(&request.group_name);
    }
    statistics.remove_group(&request.group_name);
    info!(group = %request.group_name, offsets_too = request.clean_offset, peer = %origin.address, "subscription group deleted");
    let (groups, offsets) = (Arc::clone(groups), request.clean_offset.then(|| Arc::clone(offsets)));
    Answer::when_saved(Reply::ok(), move |done| {
        groups.when_saved(move |saved| match (saved, offsets) {
            (Ok(()), Some(offsets)) => offsets.when_saved(done),
            (saved, _) => done(saved),
        });
    })
}

/// UPDATE_AND_GET_GROUP_FORBIDDEN. The empty remark is Java's.
pub(crate) fn forbidden(groups: &Arc<Groups>, request: &GroupForbiddenRequest) -> Result<Answer, Refusal> {
    let (group, topic) = (&request.group, &request.topic);
    let bits = groups.forbidden(group, topic);
    let next = match request.readable {
        None => bits,
        Some(true) => bits & !perm::READ,
        Some(false) => bits | perm::READ,
    };
    if next != bits {
        refuse_name(group)?;
        topic.validate().map_err(|error| Refusal::invalid_parameter(error.to_string()))?;
        groups.forbid(group, topic, next).map_err(Refusal::full)?;
    }
    let body =
        GroupForbidden { group: GroupName::clone(group), topic: topic.clone(), readable: Some(next & perm::READ == 0) };
    Ok(saved(groups, Reply::ok().remark("").json_body(&body)))
}
