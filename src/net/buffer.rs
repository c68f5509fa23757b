//! [`Buffer`]: bytes read but not yet used; [`Buffers`]: where idle connections leave theirs.

use std::cell::RefCell;
use std::rc::Rc;

/// Bytes one read asks the kernel for. Large enough that a result of some hundred rows comes in
/// one call, small enough that a pool of them stays in the processor's cache.
const READ_BYTES: usize = 32 * 1024;

/// The least room a read is given before the data is moved or the buffer grows.
pub const ROOM_BYTES_MIN: usize = READ_BYTES / 4;

/// Most buffers kept for reuse: what is beyond goes back to the allocator.
const KEPT_MAX: usize = 64;

/// Up to so many bytes are moved to a store of their own size when they have to wait.
const COMPACT_BYTES_MAX: usize = READ_BYTES / 8;

/// Bytes at the front are used up, bytes at the back are filled in.
#[derive(Debug, Default)]
pub struct Buffer {
    store: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that wait to be used.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.store.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Takes `count` bytes off the front.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room behind the data for at least `least` bytes, moving or growing if it must.
    pub fn room(&mut self, least: usize) -> &mut [u8] {
        if self.store.len() - self.end < least {
            self.store.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.store.len() - self.end < least {
                let wanted = (self.end + least).next_power_of_two().max(READ_BYTES);
                self.store.resize(wanted, 0);
            }
        }
        self.store.get_mut(self.end..).unwrap_or_default()
    }

    /// Counts `count` bytes of the room as data.
    #[inline]
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.store.len());
    }

    fn has_store(&self) -> bool {
        !self.store.is_empty()
    }
}

/// A worker's spare buffers: an idle connection holds none.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Rc<RefCell<Vec<Buffer>>>);

impl Buffers {
    /// Gives `buffer` a store if it has none.
    #[inline]
    pub fn lend(&self, buffer: &mut Buffer) {
        if !buffer.has_store() {
            *buffer = self.0.borrow_mut().pop().unwrap_or_default();
        }
    }

    /// Takes the store of an empty buffer back.
    #[inline]
    pub fn take_back(&self, buffer: &mut Buffer) {
        if !buffer.is_empty() || !buffer.has_store() {
            return;
        }
        let spare = std::mem::take(buffer);
        let mut kept = self.0.borrow_mut();
        // A store that grew for one long statement is not worth keeping, nor is a small one.
        if kept.len() < KEPT_MAX && (READ_BYTES..=2 * READ_BYTES).contains(&spare.store.len()) {
            kept.push(spare);
        }
    }

    /// Puts a few bytes that have to wait into a store of their own size, so that many who wait do
    /// not hold as many large ones.
    pub fn compact(&self, buffer: &mut Buffer) {
        let data = buffer.data();
        if data.len() > COMPACT_BYTES_MAX || buffer.store.len() < READ_BYTES {
            return;
        }
        let small = Buffer { store: data.to_vec(), start: 0, end: data.len() };
        let mut large = std::mem::replace(buffer, small);
        large.consume(large.len());
        self.take_back(&mut large);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let mut buffer = Buffer::default();
        buffer.room(4)[..4].copy_from_slice(b"abcd");
        buffer.filled(4);
        buffer.consume(3);
        buffer.room(8)[..2].copy_from_slice(b"ef");
        buffer.filled(2);
        assert_eq!(buffer.data(), b"def");
        buffer.consume(99);
        assert!(buffer.is_empty());
    }

    #[test]
    fn bytes_that_wait_take_no_more_than_their_own_size() {
        let buffers = Buffers::default();
        let mut buffer = Buffer::default();
        buffer.room(4)[..4].copy_from_slice(b"abcd");
        buffer.filled(4);
        buffer.consume(1);
        buffers.compact(&mut buffer);
        assert_eq!((buffer.data(), buffer.store.len()), (&b"bcd"[..], 3));
        assert_eq!(buffers.0.borrow().len(), 1);
        buffer.room(2)[..2].copy_from_slice(b"ef");
        buffer.filled(2);
        assert_eq!(buffer.data(), b"bcdef");
        // Nor is a small store kept for others.
        let mut small = Buffer { store: vec![0; 3], ..Buffer::default() };
        buffers.take_back(&mut small);
        assert_eq!((small.has_store(), buffers.0.borrow().len()), (false, 1));
    }

    #[test]
    fn an_idle_buffer_gives_its_store_back_and_a_full_one_keeps_it() {
        let buffers = Buffers::default();
        let mut buffer = Buffer::default();
        buffers.lend(&mut buffer);
        buffer.room(1)[0] = 7;
        buffer.filled(1);
        buffers.take_back(&mut buffer);
        assert_eq!(buffer.data(), [7]);
        buffer.consume(1);
        buffers.take_back(&mut buffer);
        assert!(!buffer.has_store());
    }
}
