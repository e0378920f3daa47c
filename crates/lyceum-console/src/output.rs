//! What goes to a client: pieces that are ready, and those of a rectangle that is not whole yet.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Smaller pieces are put together; larger ones are passed on without being copied. A piece keeps the
/// block alive that it was read into, so small ones must not wait for a slow client.
const COPIED: usize = 4096;
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
    held_bytes: usize,
}

impl Output {
    /// Sends for sure.
    pub fn emit(&mut self, piece: Bytes) {
        self.ready_bytes += piece.len();
        if piece.len() <= COPIED {
            if self.tail.len() + piece.len() > TOGETHER {
                self.flush();
            }
            self.tail.extend_from_slice(&piece);
        } else {
            self.flush();
            self.ready.push_back(piece);
        }
    }

    /// Sends these few bytes for sure.
    pub fn emit_copy(&mut self, bytes: &[u8]) {
        self.ready_bytes += bytes.len();
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > TOGETHER {
            self.flush();
        }
    }

    /// Sends it when the rectangle is whole.
    pub fn hold(&mut self, piece: Bytes) {
        self.held_bytes += piece.len();
        self.held.push(piece);
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
    }

    /// The rectangle will never be whole.
    pub fn discard(&mut self) {
        self.held_bytes = 0;
        self.held = Vec::new();
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
        if self.ready_bytes == 0 && self.held.is_empty() {
            // An idle connection keeps no memory.
            self.ready = VecDeque::new();
            self.held = Vec::new();
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
