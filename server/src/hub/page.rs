//! A piece of history for a client that has asked for it (SPEC section 10).

use throughline_protocol::{ChannelMessage, varint};

use crate::engine::History;

/// PAGE without publications: eight numbers of eight bytes.
const HEADER: usize = 64;

/// An answer to HISTORY whose body is not longer than `max` bytes, or has but one publication. `newest`: what does not fit is left out before the others, and not after them.
pub(super) fn page(request: u64, history: History, newest: bool, max: usize) -> ChannelMessage {
    let History { newest: position, mut complete, mut publications } = history;
    let mut room = max.saturating_sub(HEADER);
    let mut fits = |offset: u64, len: usize, is_first: bool| {
        let cost = varint::len(offset) + 1 + varint::len(len as u64) + len;
        let fits = is_first || cost <= room;
        room = room.saturating_sub(cost);
        fits
    };
    if newest {
        let count = publications.iter().rev().enumerate();
        let count = count.take_while(|(index, one)| fits(one.offset, one.message.len(), *index == 0)).count();
        let left_out = publications.len() - count;
        complete &= left_out == 0;
        publications.drain(..left_out);
    } else {
        let count = publications.iter().enumerate();
        let count = count.take_while(|(index, one)| fits(one.offset, one.message.len(), *index == 0)).count();
        publications.truncate(count);
    }
    let more = publications.last().is_some_and(|last| last.offset < position.offset);
    let publications = publications.iter().map(|one| (one.offset, one.message.clone())).collect();
    ChannelMessage::Page { request, complete, more, position, publications }
}
