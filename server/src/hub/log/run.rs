//! Publications one behind the other, as they go over the wire to everybody who is at the head: in one piece of memory, which all their sessions share.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use throughline_protocol::limits::STREAM_CHUNK;

/// One publication: its offset, and itself as it goes over the wire.
pub(super) type Wire = (u64, Bytes);

/// Without a hole between them.
pub(super) struct Run {
    /// The offset of the first.
    first: u64,
    bytes: Bytes,
    /// Where each of them ends.
    ends: Vec<usize>,
}

/// What of a run somebody lacks.
pub(super) enum Lack {
    Nothing,
    /// So many publications.
    Messages(Bytes, u64),
    /// More than is in the run.
    More,
}

impl Run {
    /// Takes the next ones: as many as follow each other, and fit into what is sent at once.
    pub(super) fn take(waiting: &mut VecDeque<Wire>) -> Option<Self> {
        let (first, bytes) = waiting.pop_front()?;
        let mut run = Self { first, ends: vec![bytes.len()], bytes };
        let mut joined = None;
        while let Some((_, next)) = waiting.front().filter(|(offset, _)| *offset == run.last() + 1) {
            let joined = joined.get_or_insert_with(|| BytesMut::from(&run.bytes[..]));
            if joined.len() + next.len() > STREAM_CHUNK {
                break;
            }
            joined.extend_from_slice(next);
            run.ends.push(joined.len());
            waiting.pop_front();
        }
        if let Some(joined) = joined.filter(|_| run.ends.len() > 1) {
            run.bytes = joined.freeze();
        }
        Some(run)
    }

    fn last(&self) -> u64 {
        self.first + self.ends.len() as u64 - 1
    }

    /// What somebody lacks who was sent everything up to `sent`; and up to which offset that is.
    pub(super) fn after(&self, sent: u64) -> (Lack, u64) {
        let last = self.last();
        if sent >= last {
            return (Lack::Nothing, sent);
        }
        if sent + 1 < self.first {
            return (Lack::More, sent);
        }
        let has = (sent + 1 - self.first) as usize;
        let begin = if has == 0 { 0 } else { self.ends[has - 1] };
        (Lack::Messages(self.bytes.slice(begin..), last - sent), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(offset: u64, len: usize) -> Wire {
        (offset, vec![offset as u8; len].into())
    }

    #[test]
    fn a_run_has_what_follows_each_other_and_gives_each_what_it_lacks() {
        let all: Vec<Wire> = [4, 5, 6, 8].map(|offset| wire(offset, 10)).into();
        let mut waiting = VecDeque::from(all.clone());
        let run = Run::take(&mut waiting).expect("there are some");
        assert_eq!(waiting.len(), 1, "after the hole another one begins");
        let bytes: Vec<Bytes> = all.into_iter().map(|(_, bytes)| bytes).collect();
        for (sent, lacks) in [(3, 0..3), (4, 1..3), (5, 2..3)] {
            let (Lack::Messages(lacking, count), 6) = run.after(sent) else { panic!("{sent}: nothing is lacking") };
            assert_eq!((lacking, count as usize), (bytes[lacks.clone()].concat().into(), lacks.len()), "{sent}");
        }
        assert!(matches!(run.after(6), (Lack::Nothing, 6)));
        assert!(matches!(run.after(9), (Lack::Nothing, 9)));
        assert!(matches!(run.after(2), (Lack::More, 2)));
        let run = Run::take(&mut waiting).expect("there is one");
        assert!(matches!(run.after(6), (Lack::More, 6)));
        assert!(Run::take(&mut waiting).is_none());
    }

    #[test]
    fn a_run_is_no_longer_than_a_frame_and_a_large_publication_is_one_by_itself_and_not_copied() {
        let mut waiting: VecDeque<_> = (1..=5).map(|offset| wire(offset, STREAM_CHUNK / 2)).collect();
        let large = wire(6, 3 * STREAM_CHUNK);
        waiting.push_back(large.clone());
        let mut counts = Vec::new();
        let (mut sent, mut last) = (0, Bytes::new());
        while let Some(run) = Run::take(&mut waiting) {
            let (Lack::Messages(bytes, count), up_to) = run.after(sent) else { panic!("something is lacking") };
            counts.push(count);
            (sent, last) = (up_to, bytes);
        }
        assert_eq!(counts, [2, 2, 1, 1]);
        assert_eq!(last.as_ptr(), large.1.as_ptr());
    }
}
