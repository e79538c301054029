//! Many lists of small numbers in one place, from any of which a number is taken out in one step.
//!
//! A held pull is in several lists at once (its connection's, its queue's …) and leaves all of them together; nothing is looked for and,
//! once there is room, nothing is allocated.

/// A list: where it begins and ends in [`Links`]. Empty by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    ends: Option<(LinkId, LinkId)>,
    len: usize,
}

/// The place of one number in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkId(u32);

#[derive(Clone, Copy, Debug)]
struct Link {
    number: u32,
    before: Option<LinkId>,
    after: Option<LinkId>,
}

/// The links of all lists.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Vec<Link>,
    free: Vec<LinkId>,
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Links {
    /// Adds to the end of a list.
    pub(super) fn push(&mut self, list: &mut List, number: u32) -> LinkId {
        let last = list.ends.map(|(_, last)| last);
        let link = Link { number, before: last, after: None };
        let id = match self.free.pop() {
            Some(id) => {
                self.links[id.0 as usize] = link;
                id
            }
            None => {
                self.links.push(link);
                LinkId(u32::try_from(self.links.len() - 1).expect("far fewer links than a u32 counts are allowed"))
            }
        };
        if let Some(last) = last {
            self.links[last.0 as usize].after = Some(id);
        }
        list.ends = Some((list.ends.map_or(id, |(first, _)| first), id));
        list.len += 1;
        id
    }

    /// Takes a number out of the list that it was pushed to.
    pub(super) fn remove(&mut self, list: &mut List, id: LinkId) {
        let Link { before, after, .. } = self.links[id.0 as usize];
        if let Some(before) = before {
            self.links[before.0 as usize].after = after;
        }
        if let Some(after) = after {
            self.links[after.0 as usize].before = before;
        }
        list.ends = list.ends.and_then(|(first, last)| {
            let first = if first == id { after? } else { first };
            let last = if last == id { before? } else { last };
            Some((first, last))
        });
        list.len -= 1;
        self.free.push(id);
    }

    /// The numbers of a list, oldest first.
    pub(super) fn iter(&self, list: &List) -> impl Iterator<Item = u32> {
        let mut next = list.ends.map(|(first, _)| first);
        std::iter::from_fn(move || {
            let link = self.links[next?.0 as usize];
            next = link.after;
            Some(link.number)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_share_links_and_nothing_else(steps in proptest::collection::vec((0usize..3, 0usize..6, any::<bool>()), 0..200)) {
            let mut links = Links::default();
            let mut lists = [List::default(); 3];
            let mut models: [Vec<(u32, LinkId)>; 3] = Default::default();
            for (number, (list, place, adds)) in steps.into_iter().enumerate() {
                let model = &mut models[list];
                if adds || model.is_empty() {
                    model.push((number as u32, links.push(&mut lists[list], number as u32)));
                } else {
                    let (_, id) = model.remove(place % model.len());
                    links.remove(&mut lists[list], id);
                }
                for (list, model) in lists.iter().zip(&models) {
                    prop_assert_eq!(list.len(), model.len());
                    let expected: Vec<u32> = model.iter().map(|(number, _)| *number).collect();
                    prop_assert_eq!(links.iter(list).collect::<Vec<_>>(), expected);
                }
            }
            prop_assert!(links.links.len() - links.free.len() == models.iter().map(Vec::len).sum::<usize>());
        }
    }
}
