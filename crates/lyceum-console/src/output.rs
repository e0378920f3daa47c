//! What goes to a client: pieces that are ready, and those of a rectangle that is not whole yet.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Smaller pieces are put together; larger ones are passed on without being copied. A piece keeps the
/// block alive that it was read into, so small ones must not wait for a slow client.
const COPIED: usize = 4096;
/// Room for pieces that is kept for the next ones.
const KEPT: usize = 4;
/// Small pieces are put together up to about this size.
const TOGETHER: usize = 16 * 1024;

/// Pieces on their way to a client.
#[derive(Debug, Default)]
pub(crate) struct Output {
    ready: VecDeque<Bytes>,
    // Small pieces that follow those in `ready`.
    tail: BytesMut,
    ready_bytes: usize,
    held: Vec<Bytes>,
    // Small pieces that follow those in `held`.
    held_tail: BytesMut,
    held_bytes: usize,
}

impl Output {
    /// Sends for sure.
    pub fn emit(&mut self, piece: Bytes) {
        if piece.len() <= COPIED {
            self.emit_copy(&piece);
        } else {
            self.ready_bytes += piece.len();
            self.flush();
            self.ready.push_back(piece);
        }
    }

    /// Sends these few bytes for sure.
    pub fn emit_copy(&mut self, bytes: &[u8]) {
        self.ready_bytes += bytes.len();
        if self.tail.len() + bytes.len() > TOGETHER {
            self.flush();
        }
        self.tail.extend_from_slice(bytes);
    }

    /// Sends it when the rectangle is whole.
    pub fn hold(&mut self, piece: Bytes) {
        if piece.len() <= COPIED {
            return self.hold_copy(&piece);
        }
        self.held_bytes += piece.len();
        if !self.held_tail.is_empty() {
            self.held.push(self.held_tail.split().freeze());
        }
        self.held.push(piece);
    }

    /// Sends these few bytes when the rectangle is whole.
    pub fn hold_copy(&mut self, bytes: &[u8]) {
        self.held_bytes += bytes.len();
        self.held_tail.extend_from_slice(bytes);
    }

    /// Bytes of a rectangle that is not whole.
    pub fn held(&self) -> usize {
        self.held_bytes
    }

    /// The rectangle is whole.
    pub fn commit(&mut self) {
        self.held_bytes = 0;
        let mut held = std::mem::take(&mut self.held);
        for piece in held.drain(..) {
            self.emit(piece);
        }
        self.held = held;
        let mut tail = std::mem::take(&mut self.held_tail);
        if tail.len() > COPIED {
            self.emit(tail.freeze());
        } else {
            self.emit_copy(&tail);
            tail.clear();
            self.held_tail = tail;
        }
    }

    /// The rectangle will never be whole.
    pub fn discard(&mut self) {
        self.held_bytes = 0;
        self.held = Vec::new();
        self.held_tail = BytesMut::new();
    }

    /// Bytes that are ready.
    pub fn ready(&self) -> usize {
        self.ready_bytes
    }

    /// The next piece.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.flush();
        }
        let piece = self.ready.pop_front()?;
        self.ready_bytes -= piece.len();
        if self.ready_bytes == 0 && self.held_bytes == 0 {
            // An idle connection keeps next to no memory.
            if self.ready.capacity() > KEPT {
                self.ready = VecDeque::new();
            }
            self.held = Vec::new();
            self.held_tail = BytesMut::new();
        }
        Some(piece)
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.ready
                .push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}
