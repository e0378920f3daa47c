//! What a person does, on its way to a machine that may be away for a moment: held, given on in
//! order and once, at a pace that loses nothing, with no key left hanging.
//!
//! A server that loses a connection lets go of all keys. So at each new one those that change the
//! meaning of others (Shift and the like) are pressed again when they are still held; a letter is
//! not, because that would type it again.

use crate::protocol::{Input, Key};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most events that are held; what comes on top is lost, but for keys that are let go.
pub const HELD_MAX: usize = 2048;
/// Bytes of clipboard text that are held.
const TEXT_HELD_MAX: usize = crate::client::CUT_TEXT_MAX;
/// Most keys that can be down at once; a person has ten fingers.
const DOWN_MAX: usize = 64;
/// Events that were given on and may have to be given again.
const JOURNAL_MAX: usize = 256;
/// A PC's keyboard holds 16 bytes, one for a key that is pressed and two when it is let go, and forgets
/// what comes on top. So keys wait here: at this pace a guest may look away for 0.15 s. Nobody types faster.
const KEY_EVERY: Duration = Duration::from_millis(20);
const KEYS_AT_ONCE: u32 = 2;

#[derive(Debug)]
struct Given {
    // Where it ends in the stream to this server.
    end: u64,
    input: Input,
    // What the server knew before.
    before: Before,
}

#[derive(Debug)]
enum Before {
    WasDown(bool),
    Pointer(Option<Pointer>),
    Nothing,
}

// Buttons and place.
type Pointer = (u8, u16, u16);

/// The input of one client. Pure: time is handed in.
#[derive(Debug, Default)]
pub struct InputQueue {
    held: VecDeque<Input>,
    text_held: usize,
    // Let go while the queue was full.
    let_go: Vec<Key>,
    // What the server was told is down.
    down: Vec<Key>,
    pointer: Option<Pointer>,
    journal: VecDeque<Given>,
    // For the next server.
    press_again: Vec<Key>,
    hold_again: Option<Pointer>,
    keys_free: u32,
    refilled: Option<Instant>,
}

impl InputQueue {
    /// Takes what a person did.
    pub fn push(&mut self, input: Input) {
        match &input {
            // Where the pointer was in between does not matter.
            Input::Pointer { buttons, .. } => {
                if let Some(last) = self.held.back_mut()
                    && matches!(last, Input::Pointer { buttons: before, .. } if before == buttons)
                {
                    *last = input;
                    return;
                }
            }
            Input::CutText(text) => {
                if self.text_held + text.len() > TEXT_HELD_MAX {
                    return;
                }
                self.text_held += text.len();
            }
            Input::Key { .. } => {}
        }
        if self.held.len() < HELD_MAX {
            self.held.push_back(input);
        } else if let Input::Key { down: false, key } = input
            && self.let_go.len() < DOWN_MAX
            && !self.let_go.contains(&key)
        {
            self.let_go.push(key);
        }
    }

    /// Events that wait.
    pub fn waiting(&self) -> usize {
        self.held.len()
    }

    /// The connection to the server is lost. `taken`: how many bytes the server is known to have
    /// read; what it did not read is given to the next one.
    pub fn lost(&mut self, taken: u64) {
        while let Some(given) = self.journal.pop_back() {
            if given.end <= taken {
                break;
            }
            match (&given.input, given.before) {
                (Input::Key { down: true, key }, Before::WasDown(false)) => {
                    self.down.retain(|k| k != key);
                }
                (Input::Key { down: false, key }, Before::WasDown(true)) => self.down.push(*key),
                (Input::Pointer { .. }, Before::Pointer(before)) => self.pointer = before,
                (Input::CutText(text), _) => self.text_held += text.len(),
                _ => {}
            }
            self.held.push_front(given.input);
        }
        self.journal.clear();
        let again = self.down.drain(..).filter(Key::is_modifier);
        for key in again {
            if !self.press_again.contains(&key) {
                self.press_again.push(key);
            }
        }
        if let Some(pointer) = self.pointer.take()
            && pointer.0 != 0
        {
            self.hold_again = Some(pointer);
        }
    }

    /// A server is there. `same`: it goes on with what the last one ran, which still believes that the
    /// buttons of the pointer are as they were.
    pub fn found(&mut self, same: bool, written: u64, out: &mut BytesMut) {
        self.keys_free = 0;
        self.refilled = None;
        for key in std::mem::take(&mut self.press_again) {
            self.give(Input::Key { down: true, key }, written, out);
        }
        if let Some((buttons, x, y)) = self.hold_again.take()
            && same
        {
            self.give(Input::Pointer { buttons, x, y }, written, out);
        }
    }

    /// Writes what may be given on now. Answers when there may be more. `written`: bytes that were
    /// written to this server before those in `out`.
    pub fn advance(&mut self, now: Instant, written: u64, out: &mut BytesMut) -> Option<Instant> {
        let refilled = *self.refilled.get_or_insert_with(|| {
            self.keys_free = KEYS_AT_ONCE;
            now
        });
        let periods = now.saturating_duration_since(refilled).as_millis() / KEY_EVERY.as_millis();
        if periods > 0 {
            self.keys_free =
                (u32::try_from(periods).unwrap_or(u32::MAX)).saturating_add(self.keys_free);
            self.keys_free = self.keys_free.min(KEYS_AT_ONCE);
            self.refilled = Some(now);
        }
        while let Some(next) = self.held.front() {
            if matches!(next, Input::Key { .. }) {
                if self.keys_free == 0 {
                    return self.refilled.map(|at| at + KEY_EVERY);
                }
                self.keys_free -= 1;
            }
            if let Some(input) = self.held.pop_front() {
                if let Input::CutText(text) = &input {
                    self.text_held = self.text_held.saturating_sub(text.len());
                }
                self.give(input, written, out);
            }
        }
        for key in std::mem::take(&mut self.let_go) {
            self.give(Input::Key { down: false, key }, written, out);
        }
        if self.held.capacity() > 0 {
            // An idle connection keeps no memory.
            self.held = VecDeque::new();
        }
        None
    }

    fn give(&mut self, input: Input, written: u64, out: &mut BytesMut) {
        let before = match &input {
            Input::Key { down, key } => {
                let was_down = self.down.contains(key);
                if !down {
                    self.down.retain(|k| k != key);
                } else if !was_down && self.down.len() < DOWN_MAX {
                    self.down.push(*key);
                }
                Before::WasDown(was_down)
            }
            Input::Pointer { buttons, x, y } => {
                Before::Pointer(self.pointer.replace((*buttons, *x, *y)))
            }
            Input::CutText(_) => Before::Nothing,
        };
        input.put(out);
        if self.journal.len() == JOURNAL_MAX {
            self.journal.pop_front();
        }
        self.journal.push_back(Given {
            end: written + out.len() as u64,
            input,
            before,
        });
    }
}
