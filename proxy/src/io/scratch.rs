//! Buffers that a thread lends for the time of one call.
//!
//! Bytes are read into them and at once written on, or copied to where they are kept, so a connection that waits needs
//! no buffer of its own, however many wait. Used by everything that reads from a stream below hyper.

use std::cell::RefCell;

/// What 64 KiB take inside TLS, with room for what it adds: one call of the system carries that much.
pub(crate) const SCRATCH: usize = 68 * 1024;

/// Buffers kept for the next call. Calls are nested two or three deep: a relay reads through TLS, which reads.
const KEPT: usize = 3;

/// Lends a buffer of [`SCRATCH`] bytes. What it holds is left from somebody else: it is to be written before it is read.
pub(crate) fn with_scratch<R>(with: impl FnOnce(&mut [u8]) -> R) -> R {
    thread_local! {
        static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    }
    let kept = BUFFERS.with_borrow_mut(Vec::pop);
    // Pages that nobody writes to are no memory: a thread that only sees small messages uses little of this.
    let mut buffer = kept.unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
    let result = with(&mut buffer);
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < KEPT {
            buffers.push(buffer);
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_within_calls_get_buffers_of_their_own() {
        with_scratch(|outer| {
            outer[0] = 1;
            with_scratch(|inner| inner[0] = 2);
            assert_eq!(outer[0], 1);
        });
    }

    #[test]
    fn a_buffer_is_lent_again() {
        let first = with_scratch(|buffer| buffer.as_ptr());
        assert_eq!(with_scratch(|buffer| buffer.as_ptr()), first);
    }
}
